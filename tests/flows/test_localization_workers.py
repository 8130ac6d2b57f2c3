"""A grid spread over two processes by Prefect's Dask task runner finds what one process finds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from factpatch.config import load_settings
from factpatch.errors import InputError
from factpatch.localization.grid import fill
from factpatch.localization.memory import Trials
from tasks.localize import localize
from tasks.validate import validate

pytestmark = pytest.mark.usefixtures("prefect_home")

PLACES = ("France", "Japan", "Brazil", "Peru", "Chad", "Fiji", "Cuba", "Iran", "Mali", "Oman")
FIELDS = ("location", "score", "margin", "reliability", "epochs", "visits", "run")


@pytest.fixture
def output(tiny_model, tmp_path, monkeypatch):
    """A folder with accepted edits, and `run(workers)`, which localizes into it and returns `localize.json`."""
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"The capital of {place} is", "target": "Tokyo", "subject": place} for place in PLACES]
    (tmp_path / "edits.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(workers: int, cache: str) -> dict:
        settings = load_settings(
            None,
            {
                "model.path": str(tiny_model("llama")),
                "edits.path": "edits.jsonl",
                "training.learning_rate": 3e-2,
                "training.epochs": 6,
                "trunk.folder": None,
                "localization.method": "grid",
                "localization.sample": 8,
                "localization.modules": ["down", "o"],
                "localization.workers": workers,
                "localization.cache": cache,
            },
        )
        validate.fn("out", settings)
        return json.loads(Path(localize.fn("out", settings)).read_text())

    return run


def test_two_workers_find_what_one_process_finds(output, tmp_path):
    alone = output(1, "one")
    shared = output(2, "two")
    assert len(shared["candidates"]) == 8
    for one, two in zip(alone["candidates"], shared["candidates"], strict=True):
        assert [one[name] for name in FIELDS] == [two[name] for name in FIELDS]
    assert shared["location"] == alone["location"]
    assert (tmp_path / "out" / "localize.png").read_bytes().startswith(b"\x89PNG")


def test_a_worker_refuses_another_model(output, tiny_model, tmp_path):
    output(1, "one")
    (folder,) = (tmp_path / "one" / "trials").iterdir()
    settings = load_settings(None, {"model.path": str(tiny_model("qwen2"))})
    with pytest.raises(InputError, match=r"has changed since the grid began"):
        fill(Trials(folder).folder, ["0:mlp.down_proj"], settings)
