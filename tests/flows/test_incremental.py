"""Releases that follow each other: new facts are added to the champion's, withdrawn ones and new bases rebuild."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from factpatch.training_data.preserved import BEGUN_EACH
from flows.__main__ import main

FACTS, MORE = 6, 2
PARAMS = """\
model: {path: MODEL}
localization: {location: "5:mlp"}
training: {learning_rate: 4.0e-3, epochs: 60, augmentation: {wordings: 0}, preservation: {neighbours: 1, least: 8}}
capability: {tasks: []}
gates: {generalization: 0.0, locality: 0.0, canaries: null, reload: 2}
"""


@pytest.fixture(scope="module")
def releases(prefect_home, reference_model, tmp_path_factory):
    """A folder with the releases of one ledger, and what each run printed, by name."""
    folder = tmp_path_factory.mktemp("incremental")
    (folder / "params.yaml").write_text(PARAMS.replace("MODEL", str(reference_model)))
    shutil.copytree(reference_model, folder / "other")
    weights = load_file(folder / "other" / "model.safetensors")
    weights["model.layers.2.mlp.down_proj.weight"] *= 1.001
    save_file(weights, folder / "other" / "model.safetensors", {"format": "pt"})
    demo = (reference_model.parents[1] / "data" / "edits" / "0001-demo.jsonl").read_text(encoding="utf-8").splitlines()
    ledger = folder / "data" / "edits"
    ledger.mkdir(parents=True)
    (ledger / "0001.jsonl").write_text("\n".join(demo[:FACTS]) + "\n", encoding="utf-8")
    told = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(told, "first")
        first, *others = map(json.loads, demo)
        wrong = (first["target"], first["target_old"])
        target = next(
            row["target"] for row in others if row["source"] == first["source"] and row["target"] not in wrong
        )
        rows = [*demo[FACTS : FACTS + MORE], json.dumps(first | {"id": "changed", "target": target})]
        (ledger / "0002.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
        run(told, "more")
        (ledger / "0003.jsonl").write_text(demo[FACTS + MORE] + "\n", encoding="utf-8")
        run(told, "drifted", "--set", "gates.weight_change=0.001")
        (ledger / "0003.jsonl").unlink()
        assert main(["edits", "revert", "changed"]) == 0
        run(told, "refused", "--set", "edits.mode=incremental")
        run(told, "reverted")
        run(told, "rebased", "--model", "other")
    return folder, told


def run(told: dict, name: str, *options: str) -> None:
    """Release into the folder `name`."""
    from contextlib import redirect_stderr, redirect_stdout
    from io import StringIO

    out = StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        code = main(["run", "--output", name, *options])
    told[name] = code, out.getvalue()


def read(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def line(text: str, start: str) -> str:
    return next(row for row in text.splitlines() if row.startswith(start))


def test_the_first_release_begins_with_the_base_model(releases):
    folder, told = releases
    code, printed = told["first"]
    assert code == 0, printed
    assert line(printed, "release:") == "release: rebuilt from the base: there is no champion yet"
    assert read(folder, "first/release.json")["mode"]["name"] == "rebuild"
    assert [path.name for path in (folder / "first" / "start").iterdir()] == ["mode.json"]


def test_new_facts_are_added_to_the_champions(releases):
    folder, told = releases
    code, printed = told["more"]
    assert code == 0, printed
    reason = "2 new facts, 1 has another target; 5 facts that it holds are verified first"
    assert line(printed, "release:") == f"release: incremental from version 1: {reason}"
    mode = {"name": "incremental", "reason": reason, "from": "1"}
    release, edit = read(folder, "more/release.json"), read(folder, "more/edit.json")
    assert release["mode"] == edit["mode"] == read(folder, "more/patch/manifest.json")["training"]["mode"] == mode
    assert (release["status"], release["version"]) == ("promoted", "2")
    assert read(folder, "more/localize.json")["method"] == "champion"
    rows = read(folder, "more/evaluate.json")["edits"]
    assert len(rows) == FACTS + MORE
    assert all(row["reliable"] for row in rows)  # those of the champion too
    assert not edit["unsure"]
    assert edit["visits"] < 3 * read(folder, "first/edit.json")["visits"]  # its first epochs are not cut short


def test_its_patch_is_one_of_the_base_model_all_the_same(releases):
    folder, _ = releases
    provenances = [read(folder, f"{name}/patch/manifest.json")["base"] for name in ("first", "more")]
    assert provenances[0] == provenances[1]
    old = [load_file(folder / name / "patch" / "undo.safetensors") for name in ("first", "more")]
    assert all(torch.equal(value, old[1][name]) for name, value in old[0].items())


def test_an_increment_that_the_gates_refuse_is_rebuilt_from_the_base(releases):
    folder, told = releases
    code, printed = told["drifted"]
    assert code == 1, printed
    first, second = (row for row in printed.splitlines() if row.startswith("release:"))
    assert first == "release: incremental from version 2: 1 new fact; 8 facts that it holds are verified first"
    assert second == "release: rebuilt from the base: the gates refused an increment (weight_change)"
    release = read(folder, "drifted/release.json")
    assert (release["mode"]["name"], release["status"]) == ("rebuild", "refused")
    assert not (folder / "drifted" / "start" / "patch").exists()


def test_a_version_leaves_its_companions_to_the_next(releases):
    folder, _ = releases
    near = [json.loads(row) for row in (folder / "first" / "companions.jsonl").read_text().splitlines()]
    assert (folder / "more" / "start" / "companions.jsonl").read_text() == (
        folder / "first" / "companions.jsonl"
    ).read_text()
    assert {row["kind"] for row in near} == {"neighbour"}
    assert read(folder, "more/edit.json")["protected"] > 0


def test_incremental_where_it_cannot_be_is_refused_in_one_line(releases):
    folder, told = releases
    code, printed = told["refused"]
    why = "1 fact was withdrawn since version 2; set auto or rebuild"
    assert (code, line(printed, "error:")) == (2, f"error: edits.mode is incremental, but this cannot be: {why}")
    assert not (folder / "refused" / "start").exists()
    assert not (folder / "refused" / "patch").exists()


def test_a_withdrawn_fact_is_as_if_it_had_never_been_written(releases):
    folder, told = releases
    code, printed = told["reverted"]
    assert code == 0, printed
    assert line(printed, "release:") == "release: rebuilt from the base: 1 fact was withdrawn since version 2"
    prompts = {row["prompt"] for row in read(folder, "reverted/evaluate.json")["edits"]}
    assert len(prompts) == FACTS + MORE - 1
    assert not (folder / "reverted" / "start" / "patch").exists()
    withdrawn = read(folder, "reverted/start/mode.json")["withdrawn"]
    assert {row["prompt"] for row in read(folder, "more/evaluate.json")["edits"]} - prompts == set(withdrawn)
    beside = {
        name: read(folder, f"{name}/edit.json")["protected"]
        - len((folder / name / "companions.jsonl").read_text(encoding="utf-8").splitlines())
        for name in ("first", "reverted")
    }  # kept beside neighbours: texts of the model's own, more for more facts, and there the withdrawn prompt
    assert beside["reverted"] == beside["first"] + BEGUN_EACH * (MORE - 1) + 1


def test_another_base_model_gets_every_active_fact_anew(releases):
    folder, told = releases
    code, printed = told["rebased"]
    assert code == 0, printed
    reason = line(printed, "release:")
    assert reason.startswith("release: rebuilt from the base: 'other' is another base model than the champion's; every")
    release, before = read(folder, "rebased/release.json"), read(folder, "reverted/release.json")
    assert release["base"]["fingerprint"] != before["base"]["fingerprint"]
    assert release["edits"]["accepted"] == before["edits"]["accepted"] == FACTS + MORE - 1
    assert (before["version"], release["version"], release["status"]) == ("5", "6", "promoted")
    assert all(row["reliable"] for row in read(folder, "rebased/evaluate.json")["edits"])
