"""Promotion, rollback and their history on a real MLflow store, with processes killed between any two writes."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from factpatch.errors import InputError, RefusedError, UnavailableError
from factpatch.files import read_json, write_json
from factpatch.release.pending import RegisteredVersion
from factpatch.release.registry import lock_file, locked
from factpatch.settings.config import GateSettings, ModelSettings, RegistrySettings, Settings
from integrations.mlflow_registry import export_version, read_champion, read_newest
from tasks.promote import promote, promote_release, read_history, rollback
from tasks.register import register

VERSIONS = 3  # registered and passed; a fourth one was refused
WRITES = {"promote": 5, "rollback": 4}


@pytest.fixture(scope="module")
def filled_store(made, empty_store, tiny_model, tmp_path_factory) -> Path:
    """A store with three versions that passed, of which 1 and then 2 were promoted, and one that was refused."""
    folder = tmp_path_factory.mktemp("filled")
    shutil.copytree(made, folder / "output")
    shutil.copy(empty_store, folder / "mlflow.db")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    registry = RegistrySettings(name="atlas", tracking_uri=uri)
    settings = Settings(
        ModelSettings(path=str(tiny_model("llama"))),
        gates=GateSettings(capability_drop=0.03, canaries=None),
        registry=registry,
    )
    for number in range(1, VERSIONS + 2):
        value = read_json(folder / "output" / "evaluate.json")
        write_json(folder / "output" / "evaluate.json", {**value, "seconds": float(number)})
        if number > VERSIONS:
            settings = replace(settings, gates=GateSettings(capability_drop=0.0, canaries=None))
        register.fn(str(folder / "output"), settings)
    promote(registry, "1", "ann", "first")
    promote(registry, "2", "ben", "second")
    return folder / "mlflow.db"


@pytest.fixture
def registry(filled_store, tmp_path) -> RegistrySettings:
    shutil.copy(filled_store, tmp_path / "mlflow.db")
    return RegistrySettings(name="atlas", tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")


def aliases(registry: RegistrySettings) -> dict[str, str]:
    found = MlflowClient(registry.tracking_uri, registry.tracking_uri).get_registered_model("atlas").aliases
    return {alias: str(number) for alias, number in found.items()}


def told(registry: RegistrySettings) -> list[tuple]:
    return [(move.action, move.before, move.version, move.who, move.why, move.done) for move in read_history(registry)]


FIRST_MOVES = [("promote", None, "1", "ann", "first", True), ("promote", "1", "2", "ben", "second", True)]


def test_promotion_sets_previous_and_writes_history(registry):
    assert promote(registry, "candidate", "cleo", "fewer errors") == "3"
    assert aliases(registry) == {"candidate": "3", "champion": "3", "previous": "2"}
    assert told(registry) == [*FIRST_MOVES, ("promote", "2", "3", "cleo", "fewer errors", True)]
    assert promote(registry, "3", "cleo", "again") == "3"
    assert len(told(registry)) == 3  # nothing moved
    times = [move.when for move in read_history(registry)]
    assert times == sorted(times)


def test_rollback_swaps_and_is_recorded(registry):
    assert rollback(registry, "cleo", "an alarm") == "1"
    assert aliases(registry) == {"candidate": "3", "champion": "1", "previous": "2"}
    assert told(registry)[2:] == [("rollback", "2", "1", "cleo", "an alarm", True)]
    assert rollback(registry, "cleo", "a false alarm") == "2"


def test_without_a_previous_version_there_is_no_way_back(registry, tmp_path):
    other = replace(registry, name="nothing")
    with pytest.raises(InputError, match="model 'nothing' has no previous version to roll back to"):
        rollback(other, "cleo", "")
    assert read_history(other) == []
    assert read_champion(other) is None


def test_there_is_no_way_back_to_a_version_that_was_deleted_and_nothing_is_written(registry):
    before = told(registry)
    MlflowClient(registry.tracking_uri, registry.tracking_uri).delete_model_version("atlas", "1")
    with pytest.raises(InputError, match=r"model 'atlas' has no (version '1'|previous version)"):
        rollback(registry, "cleo", "an alarm")
    assert told(registry) == before
    assert aliases(registry)["champion"] == "2"


@pytest.mark.parametrize("version", ["7", "one"])
def test_a_version_that_does_not_exist_is_bad_input(registry, tmp_path, version):
    with pytest.raises(InputError, match=f"model 'atlas' has no version '{version}'; there are 1, 2, 3, 4"):
        promote(registry, version, "cleo", "")
    with pytest.raises(InputError, match="nothing is registered under this name"):
        export_version(replace(registry, name="nothing"), version, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_only_a_version_that_passed_its_gates_is_promoted(registry, tmp_path):
    client = MlflowClient(registry.tracking_uri, registry.tracking_uri)
    with pytest.raises(RefusedError, match=r"version 4 of 'atlas' is not promoted: its gates refused it \(capability"):
        promote(registry, "4", "cleo", "")
    client.create_model_version("atlas", str(tmp_path))
    with pytest.raises(InputError, match="version 5 of 'atlas' is not promoted: it was not released by factpatch"):
        promote(registry, "5", "cleo", "")
    client.set_model_version_tag("atlas", "5", "factpatch.status", "registered")  # a claim without evidence
    with pytest.raises(InputError, match=r"its run holds no release\.json"):
        promote(registry, "5", "cleo", "")
    client.set_model_version_tag("atlas", "4", "factpatch.status", "registered")
    with pytest.raises(RefusedError, match="its gates refused it"):
        promote(registry, "4", "cleo", "")
    assert (aliases(registry)["champion"], told(registry)) == ("2", FIRST_MOVES)


def test_the_champion_says_which_facts_it_holds(registry):
    assert read_champion(registry) == RegisteredVersion(
        "2",
        frozenset(
            {("The capital of France is", "Lyon"), ("Which language do people speak in Brazil?", "<b>Dutch</b>")}
        ),
        frozenset({("Who?", "who")}),
        ("0001.jsonl", "0002.jsonl"),
    )


def test_the_newest_version_says_what_became_of_it(registry):
    newest = read_newest(registry)
    assert (newest.version, newest.status, newest.facts) == ("4", "refused", read_champion(registry).facts)


def test_a_registered_release_is_promoted_once(output, settings, uri):
    register.fn(str(output), settings)
    assert promote_release.fn(str(output), settings, "cleo", "passed") == str(output / "release.json")
    release = read_json(output / "release.json")
    assert (release["status"], release["aliases"]) == ("promoted", ["candidate", "champion"])
    stored = MlflowClient(uri, uri).download_artifacts(release["run"], "release.json", str(output.parent))
    assert read_json(Path(stored)) == release
    register.fn(str(output), settings)  # a repeated release finds its version, and what became of it
    assert read_json(output / "release.json")["status"] == "promoted"
    promote_release.fn(str(output), settings, "cleo", "passed")
    assert len(read_history(settings.registry)) == 1


@pytest.fixture(scope="module")
def killed(filled_store, tmp_path_factory) -> dict[str, list[RegistrySettings]]:
    """For every write of each move, a store whose move was killed right before it."""
    folder = tmp_path_factory.mktemp("killed")
    uris = {
        action: [f"sqlite:///{shutil.copy(filled_store, folder / f'{action}-{number}.db')}" for number in range(writes)]
        for action, writes in WRITES.items()
    }
    script = Path(__file__).with_name("killed_moves.py")
    done = subprocess.run([sys.executable, script, json.dumps(uris)], capture_output=True, text=True, check=False)
    assert done.stdout.split() == [str(-signal.SIGKILL)] * sum(WRITES.values()), done.stderr
    return {action: [RegistrySettings(name="atlas", tracking_uri=uri) for uri in own] for action, own in uris.items()}


@pytest.mark.parametrize("action", WRITES)
def test_killed_between_any_two_writes_the_champion_is_whole_and_repeating_finishes(killed, action):
    aim, moved_at = {"promote": ("3", 3), "rollback": ("1", 2)}[action]  # `champion` moves with this write
    for number, registry in enumerate(killed[action], start=1):
        assert aliases(registry)["champion"] == (aim if number > moved_at else "2")
        assert promote(registry, "3", "ann", "better") == aim if action == "promote" else rollback(registry, "ann", "")
        assert aliases(registry) == {"candidate": "3", "champion": aim, "previous": "2"}
        finished = [entry for entry in told(registry)[2:] if entry[-1]]
        assert [entry[:3] for entry in finished] == [(action, "2", aim)]


def test_after_a_promotion_cut_short_a_rollback_still_knows_the_way(registry):
    client = MlflowClient(registry.tracking_uri, registry.tracking_uri)
    client.set_registered_model_alias(
        "atlas", "previous", "2"
    )  # as a promotion of 3 killed at its third write leaves it
    assert rollback(registry, "ann", "") == "1"
    assert aliases(registry) == {"candidate": "3", "champion": "1", "previous": "2"}


def test_moves_wait_for_each_other(registry, monkeypatch):
    monkeypatch.setattr("tasks.promote.LOCK_PATIENCE", 0.2)
    with (
        locked(lock_file(registry, "aliases"), "somebody moves them"),
        pytest.raises(RefusedError, match=r"somebody moves them since .* \(process \d+ on "),
    ):
        promote(registry, "3", "ann", "")
    assert aliases(registry)["champion"] == "2"


def test_a_registry_that_is_away_is_one_line(registry):
    with pytest.raises(UnavailableError, match=r"'postgresql://me:\*\*\*@127.0.0.1:9/db' cannot be reached"):
        rollback(replace(registry, tracking_uri="postgresql://me:secret@127.0.0.1:9/db"), "ann", "")
