"""What registration and promotion are tested on: a finished release of a tiny model, and an empty SQLite store."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from factpatch.editing import encode_edits, run_edit
from factpatch.edits.request import EditRequest
from factpatch.evaluation.evaluate import collect_answers, measure
from factpatch.files import read_json, write_json, write_jsonl
from factpatch.models.loading import load_model
from factpatch.models.locations import locate
from factpatch.patches.certificate import certify
from factpatch.patches.patch import apply_patch, save_patch
from factpatch.release.record import digest_patch
from factpatch.settings.config import (
    EvaluationSettings,
    GateSettings,
    ModelSettings,
    RegistrySettings,
    Settings,
    TrainingSettings,
    TrunkSettings,
)

PROMPTS = ["The capital of France is", "Which language do people speak in Brazil?"]
SET_ASIDE = {"prompt": "Who?", "target": "who"}
EDITS = [EditRequest("e1", PROMPTS[0], "Lyon"), EditRequest("e2", PROMPTS[1], "<b>Dutch</b>")]


@pytest.fixture(scope="module")
def made(tiny_model, tmp_path_factory) -> Path:
    """An output folder as the steps before leave it: two edits, both reliable afterwards."""
    folder = tmp_path_factory.mktemp("made")
    settings = Settings(
        model=ModelSettings(path=str(tiny_model("llama"))),
        training=TrainingSettings(learning_rate=1e-2, epochs=150),
        trunk=TrunkSettings(folder=None),
        evaluation=EvaluationSettings(max_new_tokens=16),
    )
    loaded = load_model(settings.model)
    location = locate(loaded.model, "2:mlp")
    values = run_edit(loaded, location, EDITS, settings).values
    patch = save_patch(folder / "patch", loaded, location, values, settings, {"digest": "e0", "count": 2}, {})
    certify(loaded, patch, encode_edits(loaded, EDITS, chat_template=False))
    before = collect_answers(loaded, EDITS, settings)
    apply_patch(loaded, patch)
    after, measured = collect_answers(loaded, EDITS, settings), {"patch": digest_patch(patch)}
    place = {"name": location.name, "layer": 2, "module": location.module, "parameters": list(location.parameters)}
    row = {"metric": "acc", "direction": "higher", "before": 0.9, "after": 0.88, "n": 5000}
    interval = {"ci95_before": [0.89, 0.91], "ci95_after": [0.87, 0.89], "broken": 110, "repaired": 10}
    for name, value in {
        "validate": {"total": 3, "accepted": 2, "quarantined": 1, "files": ["0001.jsonl", "0002.jsonl"]},
        "localize": {"location": place, "reason": "named in the settings", "candidates": []},
        "edit": {"method": "breadth-first", "epochs": 2, "losses": [2.5, 0.25], "location": location.name},
        "evaluate": {**measure(EDITS, after, before), **measured},
        "regress": {"tasks": {"sums": {**row, **interval}}, **measured},
        "lineage": {"files": {"patch": {"md5": "d0.dir"}}, "edits": {"path": "data/edits", "revision": "abc123"}},
    }.items():
        write_json(folder / f"{name}.json", {"schema": 1, "seconds": 0.5, **value})
    write_jsonl(folder / "accepted.jsonl", (edit.to_row() for edit in EDITS))
    write_jsonl(folder / "quarantined.jsonl", [{"file": "0002.jsonl", "row": 9, "reasons": [], "edit": SET_ASIDE}])
    return folder


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory) -> Path:
    """A SQLite store with its tables made, to be copied: making them takes seconds."""
    store = tmp_path_factory.mktemp("store") / "mlflow.db"
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    MlflowClient(f"sqlite:///{store}").search_experiments()
    return store


@pytest.fixture
def uri(empty_store, tmp_path) -> str:
    folder = tmp_path / "mlruns"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    return f"sqlite:///{folder / 'mlflow.db'}"


@pytest.fixture
def settings(tiny_model, uri) -> Settings:
    return Settings(
        model=ModelSettings(path=str(tiny_model("llama"))),
        evaluation=EvaluationSettings(max_new_tokens=16),
        gates=GateSettings(capability_drop=0.03, canaries=None),
        registry=RegistrySettings(name="atlas", tracking_uri=uri),
    )


@pytest.fixture
def output(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "output"))


@pytest.fixture
def release_again() -> Callable[[Path], Path]:
    """Makes the next release of an output folder: the same, measured again."""

    def measure_again(output: Path) -> Path:
        value = read_json(output / "evaluate.json")
        write_json(output / "evaluate.json", {**value, "seconds": value["seconds"] + 1})
        return output

    return measure_again
