"""The release as one value, from what the steps wrote."""

import json

import pytest

from factpatch.config import GateSettings
from factpatch.errors import InputError
from factpatch.evaluation.gates import judge
from factpatch.release import assemble_release, named_numbers, read_steps, release_id

METRIC = {"value": 1.0, "n": 4, "ci95": [0.5, 1.0]}
SUMS = {"metric": "acc", "before": 0.9, "after": 0.85, "n": 100, "ci95_before": [0.8, 0.95], "ci95_after": [0.7, 0.9]}
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
    gates = judge(values["evaluate"], values["regress"]["tasks"], GateSettings(capability_drop=limit))
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
        "n": 100,
        "ci95": [0.7, 0.9],
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
    gates = judge(steps()["evaluate"], {}, GateSettings())
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
