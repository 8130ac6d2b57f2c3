"""Versions that store a patch: where their base model is found again, and what is said where it is not."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from factpatch.errors import InputError
from factpatch.files import read_json, write_json
from factpatch.patches.base import BASE_VARIABLE, find_base
from integrations.mlflow_registry import export_version
from tasks.register import register


@pytest.fixture
def stored(output, settings, tmp_path):
    """Settings of a version whose base model lies in `base`, and may be moved."""
    shutil.copytree(settings.model.path, tmp_path / "base")
    settings = replace(settings, model=replace(settings.model, path=str(tmp_path / "base")))
    register.fn(str(output), settings)
    return settings


def test_the_base_is_found_where_it_is_named(stored, output, tmp_path, monkeypatch):
    """Or by the variable, as servers have no settings; and what is not found is one line, with nothing written."""
    registry, moved = stored.registry, tmp_path / "moved"
    expected = load_file(export_version(registry, "candidate", tmp_path / "first") / "model.safetensors")
    (tmp_path / "base").rename(moved)
    forget_places(output)
    with pytest.raises(
        InputError, match=r"base model '.*' \(fingerprint \w{12}\) is not found: no model is at"
    ) as told:
        export_version(registry, "candidate", tmp_path / "second")
    assert "\n" not in str(told.value)
    assert str(tmp_path / "base") in str(told.value)
    assert not (tmp_path / "second").exists()
    export_version(registry, "candidate", tmp_path / "second", str(moved))
    monkeypatch.setenv(BASE_VARIABLE, str(moved))
    export_version(registry, "candidate", tmp_path / "third")
    for name in ("second", "third"):
        found = load_file(tmp_path / name / "model.safetensors")
        assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_another_base_is_refused_by_its_tensors(stored, output, tmp_path):
    weights = load_file(tmp_path / "base" / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"] += 1
    save_file(weights, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    forget_places(output)
    with pytest.raises(
        InputError, match=r"is another model \(1 tensor differs, such as model\.layers\.0\.mlp\.up_proj"
    ):
        export_version(stored.registry, "candidate", tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_weights_that_no_edit_touches_may_be_linked(tiny_model, output, settings, tmp_path):
    """The files keep their names, and an index stays as it is; the base's are left as they are."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from factpatch.patches.export import export_patch

    parted = tmp_path / "parted"
    AutoModelForCausalLM.from_pretrained(tiny_model("llama")).save_pretrained(parted, max_shard_size="30KB")
    AutoTokenizer.from_pretrained(tiny_model("llama")).save_pretrained(parted)
    shards = sorted(path.name for path in parted.glob("*.safetensors"))
    (parted / shards[0]).chmod(0o600)
    made = export_patch(replace(settings.model, path=str(parted)), output / "patch", tmp_path / "made", link=True)
    located = set(read_json(output / "patch" / "manifest.json")["parameters"])
    places = read_json(parted / "model.safetensors.index.json")["weight_map"]
    touched = {places[name] for name in located}
    assert len(shards) > 1
    assert touched < set(shards)
    for name in shards:
        assert os.path.samefile(parted / name, made / name) == (name not in touched)
    assert (parted / shards[0]).stat().st_mode & 0o777 == 0o600
    index = "model.safetensors.index.json"
    assert (made / index).read_bytes() == (parted / index).read_bytes()


def forget_places(output: Path) -> None:
    """Have the stored patch not know the tiny model's first home, which is still there."""
    for path in output.parent.glob("mlruns/artifacts/**/patch/manifest.json"):
        manifest = read_json(path)
        manifest["base"]["source"] = "nowhere/at-all/model"
        write_json(path, manifest)


def test_a_patch_without_a_record_knows_its_base_by_name(tiny_model, output):
    assert find_base(output / "patch") == str(tiny_model("llama"))
