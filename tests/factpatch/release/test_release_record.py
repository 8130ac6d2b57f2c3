"""The release as one value, from what the steps wrote."""

import json
import shutil

import pytest

from factpatch.errors import InputError
from factpatch.evaluation.gates import judge_gates, judge_reload
from factpatch.models.encoding import encode_edit
from factpatch.models.loading import load_model
from factpatch.models.locations import locate
from factpatch.patches.certificate import certify
from factpatch.patches.patch import save_patch
from factpatch.release.record import (
    assemble_release,
    digest_patch,
    judge_release,
    named_numbers,
    patch_problems,
    read_steps,
    release_id,
    with_gate,
)
from factpatch.settings.config import GateSettings, ModelSettings, Settings

METRIC = {"value": 1.0, "n": 4, "ci95": [0.5, 1.0]}
SUMS = {
    "metric": "acc",
    "before": 0.9,
    "after": 0.85,
    "n": 1000,
    "broken": 60,
    "repaired": 10,
    "ci95_before": [0.88, 0.92],
    "ci95_after": [0.82, 0.87],
}
MANIFEST = {
    "base": {"source": "data/model", "fingerprint": "f0"},
    "edits": {"digest": "e0", "count": 4},
    "files": {"patch.safetensors": "p0", "undo.safetensors": "u0"},
    "config_digest": "c0",
    "versions": {"torch": "2"},
}


def steps(**changes) -> dict:
    values = {
        "validate": {"seconds": 1.0, "total": 5, "accepted": 4, "quarantined": 1},
        "probes": {"seconds": 0.5},
        "localize": {
            "seconds": 2.0,
            "location": {"name": "4:mlp.down_proj", "layer": 4, "module": "mlp.down_proj", "parameters": ["w"]},
        },
        "edit": {"seconds": 3.0, "losses": [1.0, 0.1]},
        "evaluate": {
            "seconds": 4.0,
            "definitions": {"reliability": {"direction": "higher"}, "locality": {"direction": "higher"}},
            "reliability": METRIC,
            "locality": {"value": None, "n": 0, "ci95": None, "reason": "no edit has a locality probe"},
            "before": {"reliability": {**METRIC, "value": 0.0}},
        },
        "regress": {"seconds": 5.0, "tasks": {"sums": SUMS}},
        "lineage": {"seconds": 6.0, "files": {"patch": {"md5": "d0.dir", "size": 9}}},
    }
    return {**values, **changes}


def assemble(limit: float, **changes) -> dict:
    values = steps(**changes)
    gates = judge_gates(
        values["evaluate"], values["regress"]["tasks"], GateSettings(capability_drop=limit, canaries=None)
    )
    return assemble_release("atlas", values, MANIFEST, gates)


def test_a_release_gathers_the_steps():
    release = assemble(0.1)
    assert (release["status"], release["model"], release["version"]) == ("registered", "atlas", None)
    assert release["edits"] == {"total": 5, "accepted": 4, "quarantined": 1}
    assert release["location"] == {"layer": 4, "module": "mlp.down_proj", "parameters": ["w"]}
    assert release["metrics"]["reliability"] == {
        "before": 0.0,
        "after": 1.0,
        "n": 4,
        "ci95": [0.5, 1.0],
        "direction": "higher",
    }
    assert release["metrics"]["locality"]["before"] is release["metrics"]["locality"]["after"] is None
    assert release["capability"]["sums"] == {
        "metric": "acc",
        "before": 0.9,
        "after": 0.85,
        "n": 1000,
        "broken": 60,
        "repaired": 10,
        "ci95": [0.82, 0.87],
    }
    assert release["timings"]["lineage"] == 6.0
    assert release["digests"] == {
        "edits": "e0",
        "patch": "p0",
        "base": "f0",
        "config": "c0",
        "dvc": {"patch": "d0.dir"},
    }
    json.dumps(release, allow_nan=False)


def test_a_failed_gate_refuses():
    release = assemble(0.02)
    assert release["status"] == "refused"
    assert [gate["name"] for gate in release["gates"] if gate["passed"] is False] == ["capability.sums"]


def test_an_undecided_gate_refuses_too():
    release = assemble(0.05)
    assert release["status"] == "refused"
    assert [(gate["verdict"], gate["passed"]) for gate in release["gates"][-1:]] == [("undecided", None)]


def test_a_later_gate_joins_the_others():
    release = assemble(0.1)
    assert with_gate(release, judge_reload(2, []))["status"] == "registered"
    refused = with_gate(release, judge_reload(2, ["Who?"]))
    assert (refused["status"], refused["gates"][-1]["name"], len(refused["gates"])) == (
        "refused",
        "reload",
        len(release["gates"]) + 1,
    )
    assert release["status"] == "registered"


def test_a_patch_must_be_the_one_that_was_measured(certified, tmp_path):
    folder = tmp_path / "output"
    shutil.copytree(certified, folder / "patch")
    measured = {"patch": digest_patch(folder / "patch")}
    values = steps(
        evaluate={**steps()["evaluate"], **measured}, regress={**steps()["regress"], **measured, "tasks": {}}
    )
    assert patch_problems(folder, values) == []
    names = [gate.name for gate in judge_release(folder, values, GateSettings(canaries=None))]
    assert names[-2:] == ["certificate", "weight_change"]

    for name in ("evaluate", "regress"):
        other = {**values, name: {**steps()[name], "patch": None}}
        assert patch_problems(folder, other) == [f"The patch is not the one that {name}.json measured; measure again."]

    with (folder / "patch" / "patch.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    problems = patch_problems(folder, values)
    assert any("patch.safetensors" in problem for problem in problems)
    gates = judge_release(folder, values, GateSettings(canaries=None))
    assert (gates[-1].name, gates[-1].passed) == ("certificate", False)


@pytest.fixture(scope="module")
def certified(tiny_model, tmp_path_factory):
    """A patch folder with its certificate."""
    settings = Settings(model=ModelSettings(path=str(tiny_model("llama"))))
    loaded = load_model(settings.model)
    location = locate(loaded.model, "2:mlp.down_proj")
    values = {name: loaded.model.get_parameter(name) * 1.1 for name in location.parameters}
    patch = save_patch(tmp_path_factory.mktemp("certified") / "patch", loaded, location, values, settings, {}, {})
    certify(loaded, patch, [encode_edit(loaded.tokenizer, "The capital of France is", "Lyon")])
    return patch


def test_without_dvc_there_are_no_digests_of_it():
    release = assemble(0.1, lineage=None)
    assert release["digests"]["dvc"] == {}
    assert "lineage" not in release["timings"]


def test_numbers_have_names_and_only_measured_ones_appear():
    numbers = dict(named_numbers(assemble(0.1)))
    assert numbers["reliability/before"] == 0.0
    assert numbers["capability/sums/after"] == 0.85
    assert numbers["seconds/edit"] == 3.0
    assert not [name for name in numbers if name.startswith("locality")]


def test_the_identity_follows_files_and_verdicts(tmp_path):
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch" / "manifest.json").write_text(json.dumps(MANIFEST))
    for name, value in steps().items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    gates = judge_gates(steps()["evaluate"], {}, GateSettings(canaries=None))
    first = release_id(tmp_path, gates)
    assert release_id(tmp_path, gates) == first
    assert release_id(tmp_path, gates[:-1]) != first
    assert read_steps(tmp_path) == steps()
    (tmp_path / "release.json").write_text("{}")
    assert release_id(tmp_path, gates) == first
    (tmp_path / "lineage.json").unlink()
    assert release_id(tmp_path, gates) != first
    assert read_steps(tmp_path)["lineage"] is None


def test_a_step_that_did_not_run_is_named(tmp_path):
    with pytest.raises(InputError, match=r"validate\.json"):
        read_steps(tmp_path)
