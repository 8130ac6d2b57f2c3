"""A grid spread over two processes by Prefect's Dask task runner finds what one process finds."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect import flow

from factpatch.edits.accepted import ACCEPTED_FILE
from factpatch.edits.request import EditRequest
from factpatch.errors import InputError
from factpatch.files import output_folder, read_json, write_jsonl
from factpatch.localization.worker import run_trials
from factpatch.settings.config import Settings, load_settings
from tasks.localize import localize

pytestmark = pytest.mark.usefixtures("prefect_home")

PLACES = ("France", "Japan", "Brazil", "Peru", "Chad", "Fiji", "Cuba", "Iran", "Mali", "Oman")
FIELDS = ("location", "score", "margin", "reliability", "epochs", "visits", "run")


@pytest.fixture
def run(tiny_model, tmp_path, monkeypatch):
    """`run(workers, cache)` localizes ten accepted edits and returns `localize.json`."""
    monkeypatch.chdir(tmp_path)
    edits = [EditRequest(place, f"The capital of {place} is", "Tokyo", subject=place) for place in PLACES]
    write_jsonl(output_folder("out") / ACCEPTED_FILE, (edit.to_row() for edit in edits))

    def localize_with(workers: int, cache: str) -> dict:
        wishes = {"model.path": str(tiny_model("llama")), "training.learning_rate": 3e-2, "training.epochs": 6}
        wishes |= {"trunk.folder": None, "localization.method": "grid", "localization.sample": 8}
        wishes |= {"training.preservation.neighbours": 0, "training.augmentation.wordings": 0}
        wishes |= {"localization.modules": ["down"], "localization.workers": workers}
        return read_json(Path(a_flow("out", load_settings(None, {**wishes, "localization.cache": cache}))))

    return localize_with


@flow(validate_parameters=False)
def a_flow(output: str, settings: Settings) -> str:
    """The step inside a flow, as in a release."""
    return localize(output, settings)


def test_two_workers_find_what_one_process_finds(run, tiny_model, tmp_path):
    alone = run(1, "one")
    shared = run(2, "two")
    assert len(shared["candidates"]) == 4
    for one, two in zip(alone["candidates"], shared["candidates"], strict=True):
        assert [one[name] for name in FIELDS] == [two[name] for name in FIELDS]
    assert shared["location"] == alone["location"]
    assert (tmp_path / "out" / "localize.png").read_bytes().startswith(b"\x89PNG")

    (folder,) = (tmp_path / "two" / "trials").iterdir()
    other = load_settings(None, {"model.path": str(tiny_model("qwen2"))})
    with pytest.raises(InputError, match=r"has changed since the grid began"):
        run_trials(folder, ["0:mlp.down_proj"], other)
