import json
import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from factpatch.errors import InputError, RefusedError
from factpatch.models.loading import load_model, tensor_digests
from factpatch.models.locations import default_module, locate
from factpatch.patches.export import export_patch, export_undo
from factpatch.patches.patch import apply_patch, read_patch, save_patch
from factpatch.settings.config import ModelSettings, Settings


def make_patch(loaded, folder, seed=0):
    location = locate(loaded.model, f"1:{default_module(loaded.model)}")
    generator = torch.Generator().manual_seed(seed)
    values = {
        name: torch.randn(loaded.model.get_parameter(name).shape, generator=generator).to(loaded.model.dtype)
        for name in location.parameters
    }
    return save_patch(folder, loaded, location, values, Settings(), {"count": 1}, {"epochs": 1}), values


@given(seed=st.integers(0, 2**31))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_apply_changes_the_located_tensors_alone(tiny_model, tmp_path, kind, seed):
    loaded = load_model(ModelSettings(path=str(tiny_model(kind))))
    before = tensor_digests(loaded.model)
    patch, values = make_patch(loaded, tmp_path / "patch", seed)
    apply_patch(loaded, patch)
    changed = {name for name, digest in tensor_digests(loaded.model).items() if digest != before[name]}
    assert changed == set(values)
    with pytest.raises(InputError, match="this is not the base model of the patch"):
        apply_patch(loaded, patch)


def test_export_and_undo_through_folders(tiny_model, tmp_path, kind):
    base = ModelSettings(path=str(tiny_model(kind)))
    loaded = load_model(base)
    patch, values = make_patch(loaded, tmp_path / "patch")
    export_patch(base, patch, tmp_path / "edited")
    edited = load_model(ModelSettings(path=str(tmp_path / "edited")))
    assert all(torch.equal(edited.model.get_parameter(name), value) for name, value in values.items())
    assert edited.tokenizer("Who?").input_ids == loaded.tokenizer("Who?").input_ids
    export_undo(ModelSettings(path=str(tmp_path / "edited")), patch, tmp_path / "restored")
    restored = load_model(ModelSettings(path=str(tmp_path / "restored")))
    assert tensor_digests(restored.model) == tensor_digests(loaded.model)
    assert not list(tmp_path.rglob("*.bin"))


def test_another_base_is_refused_by_name(tiny_model, tmp_path):
    patch, _ = make_patch(load_model(ModelSettings(path=str(tiny_model("llama")))), tmp_path / "patch")
    other = load_model(ModelSettings(path=str(tiny_model("llama"))))
    with torch.no_grad():
        other.model.get_parameter("model.layers.0.mlp.up_proj.weight")[0, 0] += 1
    before = tensor_digests(other.model)
    with pytest.raises(InputError, match=r"model\.layers\.0\.mlp\.up_proj\.weight"):
        apply_patch(other, patch)
    assert tensor_digests(other.model) == before


def test_a_patch_applies_to_its_base_in_any_dtype(tiny_model, tmp_path):
    """It knows the files, and what they hold does not depend on the dtype that they are loaded in."""
    path = str(tiny_model("llama"))
    patch, values = make_patch(load_model(ModelSettings(path=path)), tmp_path / "patch")
    loaded = load_model(ModelSettings(path=path, dtype="bfloat16"))
    apply_patch(loaded, patch)
    for name, value in values.items():
        assert torch.equal(loaded.model.get_parameter(name), value.bfloat16())


def test_undo_needs_the_edited_model(tiny_model, tmp_path):
    base = ModelSettings(path=str(tiny_model("gpt2")))
    patch, _ = make_patch(load_model(base), tmp_path / "patch")
    with pytest.raises(InputError, match="the model that the patch made"):
        export_undo(base, patch, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


def test_a_model_stored_in_bfloat16_survives_the_round_trip(tiny_model, tmp_path):
    shutil.copytree(tiny_model("llama"), tmp_path / "base")
    load_model(ModelSettings(path=str(tmp_path / "base"), dtype="bfloat16")).model.save_pretrained(tmp_path / "base")
    base = ModelSettings(path=str(tmp_path / "base"))
    loaded = load_model(base)
    assert loaded.model.dtype == torch.float32
    location = locate(loaded.model, "1:mlp.down_proj")
    shape = loaded.model.get_parameter(location.parameters[0]).shape
    values = {location.parameters[0]: torch.randn(shape).to(torch.bfloat16).float()}
    patch = save_patch(tmp_path / "patch", loaded, location, values, Settings(), {}, {})
    export_patch(base, patch, tmp_path / "edited")
    edited = ModelSettings(path=str(tmp_path / "edited"))
    saved = load_file(tmp_path / "edited" / "model.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.bfloat16}
    export_undo(edited, patch, tmp_path / "restored")
    restored = load_model(ModelSettings(path=str(tmp_path / "restored")))
    assert tensor_digests(restored.model) == tensor_digests(load_model(base).model)


def test_values_that_are_not_finite_leave_no_patch(tiny_model, tmp_path):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    location = locate(loaded.model, "1:mlp.down_proj")
    values = {name: torch.full_like(loaded.model.get_parameter(name), torch.inf) for name in location.parameters}
    with pytest.raises(RefusedError, match="not finite"):
        save_patch(tmp_path / "patch", loaded, location, values, Settings(), {}, {})
    assert not (tmp_path / "patch").exists()


@pytest.mark.parametrize("file", ["patch.safetensors", "undo.safetensors", "manifest.json"])
def test_a_damaged_patch_is_refused(tiny_model, tmp_path, file):
    patch, _ = make_patch(load_model(ModelSettings(path=str(tiny_model("llama")))), tmp_path / "patch")
    content = bytearray((patch / file).read_bytes())
    content[-20] ^= 0xFF
    (patch / file).write_bytes(content[: len(content) - 3])
    with pytest.raises(InputError, match=file.split(".")[0]):
        read_patch(patch)


def test_the_manifest_says_what_was_written(tiny_model, tmp_path):
    patch, values = make_patch(load_model(ModelSettings(path=str(tiny_model("qwen2")))), tmp_path / "patch")
    manifest = json.loads((patch / "manifest.json").read_text())
    assert manifest["schema"] == 2
    assert list(manifest["parameters"]) == list(values)
    entry = manifest["parameters"]["model.layers.1.mlp.down_proj.weight"]
    assert (entry["shape"], entry["dtype"]) == ([32, 64], "float32")
    assert entry["sha256_before"] != entry["sha256_after"]
    assert entry["sha256_before"] == manifest["base"]["tensors"]["model.layers.1.mlp.down_proj.weight"]
