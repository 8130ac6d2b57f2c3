"""What the schedule's `run --pending` does, and leaves alone: facts, another base model, refusals, nothing left; and a
person who decides about promotion on a real Prefect server. One ledger, release after release."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from threading import Thread

import pytest
from safetensors.torch import load_file, save_file

from flows.__main__ import main
from integrations.mlflow_registry import read_champion
from tasks.promote import read_history
from tests.flows.small_release import FACTS, PARAMS, read

WAITING = f"{PARAMS}registry: {{promote: wait}}\n"


@pytest.fixture(scope="module")
def place(prefect_home, tiny_model, tmp_path_factory):
    """Where a model, another one that differs in one matrix, a ledger and settings lie."""
    folder = tmp_path_factory.mktemp("pending")
    for name in ("base", "other"):
        shutil.copytree(tiny_model("llama"), folder / name)
    weights = load_file(folder / "other" / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"] *= 1.01
    save_file(weights, folder / "other" / "model.safetensors", {"format": "pt"})
    (folder / "ledger").mkdir()
    write(folder / "ledger" / "0001.jsonl", *FACTS)
    (folder / "params.yaml").write_text(WAITING)
    return folder


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


def write(path: Path, *rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run(output: str, *options: str) -> tuple[int, list[str]]:
    """Exit code of a release into the folder `output`, and all lines it printed."""
    told = StringIO()
    with redirect_stdout(told), redirect_stderr(told):
        code = main(["run", "--output", output, *options])
    return code, told.getvalue().splitlines()


def states() -> set[str]:
    """Of all flow runs so far."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return {run.state_name for run in client.read_flow_runs()}


def registry():
    from factpatch.settings.config import load_settings

    return load_settings("params.yaml").registry


@pytest.fixture
def person(monkeypatch):
    """Makes somebody who answers on Prefect's page, and gives what the server said to each answer; `meanwhile` is done
    before."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    import flows.release as module

    api = str(PREFECT_API_URL.value())
    monkeypatch.setenv("PREFECT_API_URL", api)
    monkeypatch.setattr(module, "SECONDS_TO_LOOK", 1)

    def decide(*answers: dict, meanwhile: Callable[[], object] = lambda: None) -> list:
        said = []

        def answer() -> None:
            from prefect.client.orchestration import get_client
            from prefect.client.schemas.filters import FlowRunFilter
            from prefect.flow_runs import resume_flow_run

            paused = FlowRunFilter.model_validate({"state": {"type": {"any_": ["PAUSED"]}}})
            with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
                while not (runs := client.read_flow_runs(flow_run_filter=paused)):
                    time.sleep(0.2)
                meanwhile()
                for one in answers:
                    try:
                        said.append(resume_flow_run(runs[0].id, run_input=one))
                    except RuntimeError as error:
                        said.append(str(error))

        Thread(target=answer, daemon=True).start()
        return said

    return decide


def test_a_person_approves_and_is_named_in_the_history(here, person):
    said = person({"promote": "perhaps"}, {"promote": True, "who": "ann", "why": "looks right"})
    code, printed = run("first", "--pending")
    assert code == 0, printed
    assert "2 to write, 0 to withdraw (no champion yet)" in printed[0]
    assert "promote" in said[0]  # the server took no answer that is none
    assert said[1:] == [None]
    assert read("first/release.json")["status"] == "promoted"
    assert [(move.version, move.who, move.why) for move in read_history(registry())] == [("1", "ann", "looks right")]


def test_a_person_declines_and_the_version_stays_the_candidate(here, person):
    write(Path("ledger/0002.jsonl"), {"id": "three", "prompt": "Where?", "target": "Ålesund"})
    person({"promote": False, "who": "ann"})
    code, printed = run("declined", "--pending")
    assert code == 0, printed
    release = read("declined/release.json")
    assert (release["status"], release["aliases"]) == ("registered", ["candidate"])
    assert read_champion(registry()).version == "1"
    code, printed = run("again", "--pending")  # what a person declined is not made again
    assert (code, printed[-1].partition("; ")[2]) == (0, "version 2 has done so: 'factpatch promote 2' uses it")


def test_another_base_model_in_the_settings_is_work_for_the_schedule(here):
    assert main(["promote", "2"]) == 0
    Path("params.yaml").write_text(WAITING.replace("wait", "auto"))
    code, printed = run("same", "--pending")
    assert (code, printed) == (0, ["nothing is pending: champion 2 holds the ledger"])
    Path("params.yaml").write_text(WAITING.replace("path: base", "path: other").replace("wait", "auto"))
    code, printed = run("rebased", "--pending")
    assert code == 0, printed
    why = "every fact is to be written anew, as the base model is 'other' and was 'base'"
    assert printed[0] == f"release: 0 to write, 0 to withdraw (champion 2); {why}"
    assert read("rebased/release.json")["status"] == "promoted"
    number = read("rebased/release.json")["version"]
    assert run("same", "--pending")[1] == [f"nothing is pending: champion {number} holds the ledger"]


def test_a_refusal_that_the_registry_does_not_hold_is_not_repeated_until_something_changes(here):
    write(Path("ledger/0003.jsonl"), {"id": "four", "prompt": "Who?", "target": "Ada"})
    strict = ("--set", "gates.portability=1.0", "--set", "registry.keep_refused=false", "--set", "training.epochs=1")
    code, printed = run("refused", "--pending", *strict[2:])
    assert code == 1, printed
    assert read("refused/release.json")["version"] is None
    assert "Refused" in states()
    code, printed = run("left", "--pending", *strict[2:])
    assert (code, len(printed)) == (0, 1)
    assert "; this was refused at " in printed[0]
    assert "(reliability" in printed[0]
    assert not Path("left/validate.json").exists()
    code, printed = run("changed", "--pending", *strict)  # other settings: it is tried, and told what is wrong now
    assert (code, printed[0].partition(" (")[0]) == (2, "release: 1 to write, 0 to withdraw")
    assert "portability" in printed[-1]


def test_where_every_fact_is_withdrawn_the_base_model_is_released(here):
    rows = [{"op": "revert", "id": name} for name in ("one", "two", "three", "four")]
    write(Path("ledger/0004.jsonl"), *rows)
    assert main(["validate", "ledger", "--strict", "--output", "checked"]) == 0
    code, printed = run("base-again", "--pending")
    assert code == 0, printed
    assert "release: rebuilt from the base: no fact is in force, so the release is the base model itself" in printed
    release = read("base-again/release.json")
    assert (release["status"], [gate["name"] for gate in release["gates"]]) == ("promoted", ["unedited", "certificate"])
    assert "this is the base model" in Path("base-again/report.html").read_text(encoding="utf-8")
    assert main(["export", "--output", "exported"]) == 0
    exported, base = (load_file(f"{name}/model.safetensors") for name in ("exported", "other"))
    assert all(exported[name].equal(value) for name, value in base.items())
    assert run("same", "--pending")[1][-1].startswith("nothing is pending")
    assert main(["monitor", "--output", "monitored"]) == 0
    assert read("monitored/monitor.json")["reasons"] == ["No fact is in force."]
    assert main(["rollback"]) == 0  # the facts are back
    assert len(read_champion(registry()).facts) == 3


def test_a_ledger_without_facts_and_a_registry_without_champion_release_nothing(here):
    write(Path("gone.jsonl"), {"id": "x", "prompt": "p", "target": "t", "expires": "2020-01-01"})
    code, printed = run("nothing", "--edits", "gone.jsonl", "--set", "registry.name=unborn")
    assert code == 1
    assert printed[-1] == "error: no fact is in force in 'gone.jsonl', and there is no champion to take one from"


def test_a_person_approves_the_version_that_was_asked_about_though_another_took_its_folder(here, person):
    write(Path("one.jsonl"), FACTS[0])

    def another() -> None:
        release = read("shared/release.json")
        Path("shared/release.json").write_text(json.dumps({**release, "version": "2"}), encoding="utf-8")

    person({"promote": True, "who": "ann"}, meanwhile=another)
    options = ("--edits", "one.jsonl", "--set", "registry.name=asked", "--set", "registry.promote=wait")
    code, printed = run("shared", *options)
    assert code == 0, printed
    moves = read_history(replace(registry(), name="asked"))
    assert [(move.version, move.who) for move in moves] == [("1", "ann")]
    assert (read("shared/release.json")["version"], read("shared/release.json")["status"]) == ("2", "registered")


def test_another_ledger_is_asked_about_before_any_work_and_adopts_the_champion_only_if_told_to(here):
    name, champion = registry().name, read_champion(registry())
    write(Path("theirs.jsonl"), {"id": "x", "prompt": "Which river?", "target": "Rhône"})
    code, printed = run("theirs", "--edits", "theirs.jsonl")
    error = printed[-1]
    assert code == 2, printed
    assert f"version {champion.version} of '{name}' was released from another ledger, '" in error
    assert f":{here / 'ledger'}'" in error
    assert '3 of its 3 facts, such as "The capital of France is" -> "Lyon"' in error
    assert error.endswith(
        "name this project's own model with registry.name, or withdraw them with 'factpatch run --adopt'"
    )
    assert list(Path("theirs").iterdir()) == []
    code, printed = run("theirs", "--edits", "theirs.jsonl", "--adopt", "--set", "registry.promote=auto")
    assert code == 0, printed
    assert f"release: adopts version {champion.version} of '{name}' from the ledger '" in printed[0]
    assert {fact for fact, _ in read_champion(registry()).facts} == {"Which river?"}
    code, printed = run("mine", "--pending")  # and the other way round
    assert code == 2, printed
    assert '1 of its 1 facts, such as "Which river?" -> "Rhône"' in printed[-1]


def test_a_ledger_that_was_moved_keeps_its_champion(here):
    assert main(["rollback"]) == 0
    shutil.move("ledger", "moved")
    assert main(["edits", "pending", "--edits", "moved"]) == 0
