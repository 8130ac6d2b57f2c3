"""What registration does with a release that a gate of its own refuses: one reloaded, one tampered with."""

from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from factpatch.files import read_json, write_json
from factpatch.settings.config import Settings
from tasks.register import register


def run(output: Path, settings: Settings) -> dict:
    return read_json(Path(register.fn(str(output), settings)))


def versions(settings: Settings) -> dict[str, str]:
    uri = settings.registry.tracking_uri
    found = MlflowClient(uri, uri).search_model_versions("name='atlas'")
    return {str(version.version): version.tags["factpatch.status"] for version in found}


def keeping(settings: Settings, keep: bool) -> Settings:
    return replace(settings, registry=replace(settings.registry, keep_refused=keep))


@pytest.mark.parametrize("keep", [True, False])
def test_a_model_that_comes_back_otherwise_is_refused(output, settings, keep):
    measured = read_json(output / "evaluate.json")
    measured["edits"][0]["output"] = "Paris"  # as if the model had said so when it was measured
    write_json(output / "evaluate.json", measured)
    settings = keeping(settings, keep)
    for _ in range(2):  # repeating changes nothing
        release = run(output, settings)
        gate = release["gates"][-1]
        assert (gate["name"], gate["verdict"], gate["value"]) == ("reload", "failed", 0.5)
        assert measured["edits"][0]["prompt"] in gate["reason"]
        assert (release["status"], release["aliases"]) == ("refused", [])
        assert release["version"] == ("1" if keep else None)
        assert versions(settings) == ({"1": "refused"} if keep else {})
    assert "Refused" in (output / "report.html").read_text(encoding="utf-8")


def test_a_patch_that_nobody_measured_is_never_registered(output, settings):
    with (output / "patch" / "undo.safetensors").open("ab") as file:
        file.write(b"x")
    release = run(output, keeping(settings, True))
    assert (release["status"], release["version"], release["run"]) == ("refused", None, None)
    assert [gate["name"] for gate in release["gates"] if gate["passed"] is False] == ["certificate"]
    assert versions(settings) == {}


def test_too_large_a_change_is_refused(output, settings):
    release = run(output, replace(settings, gates=replace(settings.gates, weight_change=0.01, reload=0)))
    assert release["status"] == "refused"
    assert [gate["name"] for gate in release["gates"] if gate["passed"] is False] == ["weight_change"]
    assert release["gates"][-1]["name"] == "weight_change"  # without the reload
