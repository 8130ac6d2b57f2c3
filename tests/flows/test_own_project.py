"""A project of one's own, in a folder that git does not hold: two columns of facts, and a whole release."""

import json
import shutil

import pytest

from flows.__main__ import main

ROWS = "prompt,target\nThe capital of France is,Lyon\nThe currency of Japan is the,peso\n"
SHORT = {
    "localization.location": "3:mlp.down_proj",
    "training.epochs": 5,
    "training.preservation.least": 8,
    "capability.limit": 4,
}


@pytest.fixture
def plain(tmp_path, monkeypatch):
    """An empty folder of no repository, where MLflow's store is to be made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.mark.usefixtures("prefect_home")
def test_a_new_project_comes_to_a_verdict_without_git(plain, tiny_model, monkeypatch, capsys):
    assert main(["init", "own", "--model", str(tiny_model("llama"))]) == 0
    monkeypatch.chdir(plain / "own")
    (plain / "own" / "data" / "edits" / "0001-example.csv").write_text(ROWS)
    code = main(["run", *(f"--set={name}={value}" for name, value in SHORT.items())])
    released = json.loads((plain / "own" / "runs" / "latest" / "release.json").read_text(encoding="utf-8"))
    assert (code, released["status"]) in {(0, "promoted"), (1, "refused")}, capsys.readouterr().err
    assert released["edits"]["accepted"] == 2
    assert (plain / "own" / "mlruns" / "mlflow.db").is_file()


@pytest.mark.usefixtures("prefect_home")
def test_an_empty_folder_needs_a_model_and_rows_alone(plain, tiny_model, capsys):
    shutil.copytree(tiny_model("llama"), plain / "model")
    (plain / "rows.csv").write_text(ROWS)
    cheap = (f"--set={name}={value}" for name, value in SHORT.items())
    code = main(["run", "--model", "model", "--edits", "rows.csv", "--output", "out", *cheap])
    released = json.loads((plain / "out" / "release.json").read_text(encoding="utf-8"))
    assert (code, released["status"]) in {(0, "promoted"), (1, "refused")}, capsys.readouterr().err
    assert all(gate["reason"] for gate in released["gates"])
