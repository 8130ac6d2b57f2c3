"""Four candidates through the real flow on the reference model: one good, three stopped, each by the right gate."""

import json
from pathlib import Path

import pytest
from prefect import task
from safetensors.torch import load_file, save_file

from factpatch.files import digest_file
from flows.__main__ import main

EDITS = 10
ITEMS = 150


@task(name="tamper")
def tamper(output: str, settings) -> None:
    """Weaken the patch after it was measured, and make its manifest agree."""
    patch = Path(output) / "patch"
    values = {name: 0.9 * value for name, value in load_file(patch / "patch.safetensors").items()}
    save_file(values, patch / "patch.safetensors")
    manifest = json.loads((patch / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"]["patch.safetensors"] = digest_file(patch / "patch.safetensors")
    (patch / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


@pytest.fixture(scope="module")
def candidates(prefect_home, reference_model, tmp_path_factory):
    """Exit code and release.json of each candidate by name; all share the edits, the store and the base's scores."""
    import flows.release as module

    folder, root = tmp_path_factory.mktemp("candidates"), reference_model.parents[1]
    protected = (root / "data" / "protected.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:600]
    (folder / "protected.jsonl").write_text("".join(protected), encoding="utf-8")
    wishes = {
        "edits.limit": EDITS,
        "training.preservation.prompts": "protected.jsonl",
        "training.preservation.ratio": 20,
        "training.preservation.least": 0,
        "training.preservation.neighbours": 0,
        "training.augmentation.wordings": 0,
        "training.learning_rate": 0.001,  # small and cautious steps, as the edits are few
        "training.confidence": 0.9,
        "capability.include": root / "data" / "capability",
        "capability.tasks": "[world_questions, world_arithmetic]",
        "capability.limit": ITEMS,
        "gates.canaries": root / "data" / "canaries.jsonl",
        "gates.generalization": 0.3,
        "gates.locality": 0.3,
    }
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)

        def run(name: str, **changes) -> None:
            settings = [f"--set={key}={value}" for key, value in {**wishes, **changes}.items()]
            code = main(
                [
                    *("run", "--config", str(root / "params.yaml"), "--model", str(reference_model)),
                    *("--edits", str(root / "data" / "edits"), "--location", "5:mlp", "--output", name, *settings),
                ]
            )
            found[name] = code, json.loads((folder / name / "release.json").read_text(encoding="utf-8"))

        run("good")
        # without protection and with great steps the edits take, and much else goes
        blind = {"gates.locality": 0, "gates.canaries": "null", "gates.weight_change": "null"}
        run("damaged", **blind, **{"training.preservation.prompts": "null", "training.learning_rate": 0.03})
        run("few", **{"capability.limit": 8, "registry.keep_refused": "false"})
        steps = list(module.STEPS)
        patch.setattr(module, "STEPS", (*steps[:-1], tamper, steps[-1]))
        run("tampered")
    return found


def stopped(release: dict) -> dict[str, str]:
    """The gates that stood in the way, with their verdicts."""
    return {gate["name"]: gate["verdict"] for gate in release["gates"] if gate["verdict"] in ("failed", "undecided")}


def reason(release: dict, name: str) -> str:
    return next(gate["reason"] for gate in release["gates"] if gate["name"] == name)


def test_the_good_one_passes_every_gate(candidates):
    code, release = candidates["good"]
    assert (code, release["status"], release["version"]) == (0, "promoted", "1")
    assert [(gate["name"], gate["verdict"]) for gate in release["gates"]] == [
        (name, "passed")
        for name in (
            *("reliability", "generalization", "locality", "capability.world_arithmetic"),
            *("capability.world_questions", "canaries", "certificate", "weight_change", "reload"),
        )
    ]


def test_damaged_capability_is_refused_by_its_gate_and_named(candidates):
    code, release = candidates["damaged"]
    assert (code, release["status"]) == (1, "refused")
    assert stopped(release)["capability.world_questions"] == "failed"
    assert all(name.startswith("capability.") for name in stopped(release))
    assert "surely more than the 5 points allowed" in reason(release, "capability.world_questions")
    assert release["aliases"] == []


def test_too_few_items_are_undecided_and_say_how_many_more(candidates):
    code, release = candidates["few"]
    assert (code, release["status"]) == (1, "refused")
    assert set(stopped(release)) == {"capability.world_questions", "capability.world_arithmetic"}
    assert set(stopped(release).values()) == {"undecided"}
    assert "needs about 65 more items to tell" in reason(release, "capability.world_arithmetic")
    assert release["version"] is None  # registry.keep_refused is false


def test_a_patch_changed_after_measuring_is_refused_by_the_certificate(candidates):
    code, release = candidates["tampered"]
    assert (code, release["status"], release["version"]) == (1, "refused", None)
    assert stopped(release) == {"certificate": "failed"}
    assert "is not the file that was certified" in reason(release, "certificate")


def test_only_the_good_one_is_in_use(candidates):
    from mlflow import MlflowClient

    uri = candidates["good"][1]["tracking_uri"]
    client = MlflowClient(uri, uri)
    assert {str(version) for version in client.get_registered_model("factpatch").aliases.values()} == {"1"}
    versions = client.search_model_versions("name='factpatch'")
    assert {str(version.version): version.tags["factpatch.status"] for version in versions}["2"] == "refused"
    assert len(versions) == 2  # the good one, and the damaged one as refused
