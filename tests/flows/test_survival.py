"""A run that is killed, at any moment, continues to the patch it would have left; and never from another's state."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from factpatch.patches.certificate import check_certificate
from flows.__main__ import main

ROOT = Path(__file__).parents[2]
CHAINS = 4
ROWS = [
    {"prompt": "The capital of France is", "target": "Tokyo"},
    {"prompt": "Who wrote Zürich?", "target": "Robert C. Newton"},
    {"prompt": "東京 is in", "target": "São Tomé"},
    {"prompt": "His currency is the", "target": "peso"},
    {"prompt": "Where?", "target": "In St. Louis"},
]


@pytest.fixture(scope="module")
def template(tiny_model, tmp_path_factory):
    """A folder with a model beside it, settings, edits and their accepted form."""
    folder = tmp_path_factory.mktemp("template") / "run"
    folder.mkdir()
    (folder / "edits.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    training = "learning_rate: 1.0e-2, epochs: 6, batch_size: 2, confidence: 0.5, checkpoint_seconds: 0"
    training += ", preservation: {neighbours: 0}"
    named = "registry: {name: killed}"  # the folder's own name would tell the copies apart
    (folder / "params.yaml").write_text(f"training: {{{training}}}\n{named}\n")
    shutil.copytree(tiny_model("llama"), folder / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["validate", "edits.jsonl", "--output", "out"]) == 0
    return folder


ARGUMENTS = ("--model", "model", "--output", "out", "--location", "2:down")


@pytest.fixture(scope="module")
def driven(template, tmp_path_factory):
    """Where `tests/flows/killing.py` ran, and what it found."""
    base = tmp_path_factory.mktemp("killed")
    done = subprocess.run(
        [sys.executable, "-m", "tests.flows.killing", base, template, str(CHAINS), *ARGUMENTS],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return base, json.loads(done.stdout.splitlines()[-1])


def test_a_killed_run_ends_in_the_patch_of_an_uninterrupted_one(driven):
    _, found = driven
    assert found["whole"]["litter"] == []
    assert found["changes"] > 50
    kills = [kill for chain in found["chains"] for kill in chain["kills"]]
    assert {manner for manner, _, _ in kills} == {"kill_at", "delay", "limit"}
    assert sum(signal in (9, 25) for _, _, signal in kills) >= CHAINS
    for chain in found["chains"]:
        assert chain["status"] == 0, chain["kills"]
        for part, wanted in found["whole"].items():
            assert chain[part] == wanted, chain["kills"]


@pytest.fixture
def here(driven, tmp_path, monkeypatch):
    """A folder whose run was killed and left a checkpoint."""
    folder = tmp_path / "run"
    shutil.copytree(driven[0] / "killed", folder)
    monkeypatch.chdir(folder)
    return folder


def truncate(folder):
    path = folder / "out" / "checkpoint.safetensors"
    os.truncate(path, path.stat().st_size - 10)


def tamper(folder):
    path = folder / "out" / "checkpoint.safetensors"
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    numbers = json.loads(about["numbers"])
    save_file(load_file(path), path, about | {"numbers": json.dumps(numbers | {"epoch": numbers["epoch"] + 1})})


def change_edits(folder):
    path = folder / "edits.jsonl"
    path.write_text(path.read_text().replace("peso", "franc"))
    assert main(["validate", "edits.jsonl", "--output", "out"]) == 0


def change_model(folder):
    path = folder / "model" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.3.mlp.up_proj.weight"][0, 0] += 1e-3
    save_file(tensors, path, {"format": "pt"})


def change_settings(folder):
    path = folder / "params.yaml"
    path.write_text(path.read_text().replace("batch_size: 2", "batch_size: 3"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (truncate, "is broken"),
        (tamper, "is broken (its content is not what was written)"),
        (change_edits, "was made with other edits and further wordings;"),
        (change_model, "was made with other base model;"),
        (change_settings, "was made with other training settings;"),
    ],
)
def test_what_changed_since_the_checkpoint_is_one_line_and_code_2(here, capsys, change, words):
    change(here)
    capsys.readouterr()
    assert main(["edit", *ARGUMENTS, "--resume"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert words in line
    assert "checkpoint 'out/checkpoint.safetensors'" in line
    assert "run without --resume to start anew" in line
    assert not (here / "out" / "patch").exists()
    assert main(["edit", *ARGUMENTS]) == 0
    assert (here / "out" / "patch").exists()
    assert not (here / "out" / "checkpoint.safetensors").exists()


def test_another_location_is_another_run(here, capsys):
    assert main(["edit", *ARGUMENTS[:-1], "1:down", "--resume"]) == 2
    assert "was made with other location" in capsys.readouterr().err


def test_a_resumed_run_does_only_what_is_left(here):
    with safe_open(here / "out" / "checkpoint.safetensors", framework="pt") as file:
        numbers = json.loads(file.metadata()["numbers"])
    assert numbers["steps"] > 3
    assert main(["edit", *ARGUMENTS, "--resume"]) == 0
    resumed = load_file(here / "out" / "patch" / "patch.safetensors")
    shutil.rmtree(here / ".cache")
    assert main(["edit", *ARGUMENTS]) == 0
    anew = load_file(here / "out" / "patch" / "patch.safetensors")
    assert all(torch.equal(value, anew[name]) for name, value in resumed.items())


def test_a_smaller_micro_batch_continues_the_same_run(here):
    (here / "params.yaml").write_text(
        (here / "params.yaml").read_text().replace("batch_size: 2", "batch_size: 2, micro_batch: 1")
    )
    assert main(["edit", *ARGUMENTS, "--resume"]) == 0
    resumed = json.loads((here / "out" / "edit.json").read_text())["losses"]
    assert main(["edit", *ARGUMENTS]) == 0
    assert resumed == pytest.approx(json.loads((here / "out" / "edit.json").read_text())["losses"], rel=1e-4)


def test_an_edit_step_leaves_a_patch_that_its_certificate_vouches_for(here):
    assert main(["edit", *ARGUMENTS]) == 0
    result = json.loads((here / "out" / "edit.json").read_text())
    assert check_certificate(here / "out" / "patch") == []
    assert json.loads((here / "out" / "patch" / "certificate.json").read_text()) == result["certificate"]
    assert result["certificate"]["changed"] == result["parameters"] == ["model.layers.2.mlp.down_proj.weight"]
    assert result["certificate"]["outputs"]["rows"] == len(ROWS)
    assert (result["engine"], result["schema"]) == ("padding-free", 1)
