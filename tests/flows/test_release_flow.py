"""One whole release on the reference model: real Prefect, MLflow on SQLite, DVC and lm-evaluation-harness."""

import json

import pytest

from flows.__main__ import main

LIMIT = 12


@pytest.fixture(scope="module")
def released(prefect_home, reference_model, tmp_path_factory):
    """A folder with a release, and its exit code."""
    folder = tmp_path_factory.mktemp("release")
    root = reference_model.parents[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)  # which `mlflow.set_tracking_uri` sets for later tests too
        wishes = {
            "edits.limit": LIMIT,
            "localization.sample": LIMIT,
            "localization.budget_edits": 3 * LIMIT,
            "training.epochs": 20,
            "training.batch_size": 6,
            "training.preservation.prompts": "null",
            "training.preservation.neighbours": 0,
            "training.augmentation.wordings": 0,
            "capability.include": root / "data" / "capability",
            "capability.limit": 16,
            "gates.capability_drop": 0.6,
            "gates.generalization": 0.3,
            "gates.locality": 0.1,
            "gates.canaries": "null",
        }
        options = [
            *("--config", str(root / "params.yaml"), "--model", str(reference_model)),
            *("--edits", str(root / "data" / "edits"), *(f"--set={name}={value}" for name, value in wishes.items())),
        ]
        code = main(["run", *options, "--output", "out"])
    return folder, code


def read(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_the_release_is_promoted_and_every_part_left_its_file(released):
    folder, code = released
    release = read(folder, "out/release.json")
    assert (code, release["status"], release["version"]) == (0, "promoted", "1")
    assert release["edits"] == {"total": 200, "accepted": LIMIT, "quarantined": 0}
    assert release["metrics"]["reliability"]["before"] < 0.1
    assert release["metrics"]["reliability"]["after"] >= 0.95
    assert set(release["capability"]) == {
        f"world_{family}" for family in ("choice", "questions", "sentiment", "translation", "arithmetic")
    }
    assert all(gate["passed"] for gate in release["gates"])
    for name in (
        "validate.json",
        "probes.json",
        "localize.json",
        "edit.json",
        "evaluate.json",
        "regress.json",
        "lineage.json",
    ):
        assert read(folder / "out", name)["schema"] == 1
    assert "promoted" in (folder / "out" / "report.html").read_text(encoding="utf-8")
    assert (folder / "out" / "data_docs" / "index.html").exists()


def test_digests_agree_across_the_parts(released):
    folder, _ = released
    release, manifest = read(folder, "out/release.json"), read(folder, "out/patch/manifest.json")
    assert manifest["edits"]["digest"] == read(folder, "out/validate.json")["digest"] == release["digests"]["edits"]
    assert manifest["base"]["fingerprint"] == release["base"]["fingerprint"]
    assert release["digests"]["dvc"]["patch"] == read(folder, "out/lineage.json")["files"]["patch"]["md5"]


def test_the_registered_version_answers_with_the_edited_fact(released, capsys):
    import mlflow.pyfunc

    folder, _ = released
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}")
    champion = mlflow.pyfunc.load_model("models:/factpatch@champion")
    edits = [edit for edit in read(folder, "out/evaluate.json")["edits"] if edit["reliable"]]
    assert champion.predict([edit["prompt"] for edit in edits]) == [edit["output"] for edit in edits]


def test_the_flow_run_left_a_markdown_artifact(released):
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        artifacts = client.read_artifacts()
    assert any(artifact.key == "release" and "reliability" in artifact.data for artifact in artifacts)


def test_no_training_row_holds_a_paraphrase(released):
    from factpatch.editing import encode_edits
    from factpatch.edits.accepted import read_accepted
    from factpatch.models.loading import load_model
    from factpatch.settings.config import ModelSettings

    folder, _ = released
    edits = read_accepted(folder / "out")
    manifest = read(folder, "out/patch/manifest.json")
    loaded = load_model(ModelSettings(path=manifest["base"]["source"]))
    trained = {loaded.tokenizer.decode(row.ids[: row.prompt_length]) for row in encode_edits(loaded, edits, False)}
    assert trained == {edit.prompt for edit in edits}
    assert not trained & {paraphrase for edit in edits for paraphrase in edit.paraphrases}
