import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from factpatch.errors import InputError, RefusedError
from factpatch.files import digest_file, write_json
from factpatch.models.encoding import encode_edit
from factpatch.models.loading import known_digests, load_model, preserved, tensor_digests, write_values
from factpatch.models.locations import default_module, locate
from factpatch.patches.certificate import certify, change_norms, check_certificate, output_digest, tokenizer_digests
from factpatch.patches.patch import read_patch, save_patch
from factpatch.settings.config import ModelSettings, Settings

QUESTIONS = [("The capital of France is", "Tokyo"), ("Which language?", "Robert C. Newton"), ("Where?", "São Tomé")]


def make(folder, tmp_path):
    """A patch with the rows whose outputs it changes, and their digest while the new values are in memory."""
    loaded = load_model(ModelSettings(path=str(folder)))
    location = locate(loaded.model, f"2:{default_module(loaded.model)}")
    generator = torch.Generator().manual_seed(3)
    old = {name: loaded.model.get_parameter(name) for name in location.parameters}
    values = {name: value + torch.randn(value.shape, generator=generator) for name, value in old.items()}
    rows = [encode_edit(loaded.tokenizer, *question) for question in QUESTIONS]
    with preserved(loaded.model, location.parameters):
        write_values(loaded.model, values)
        measured = output_digest(loaded, rows)
    return loaded, save_patch(tmp_path / "patch", loaded, location, values, Settings(), {}, {}), rows, measured


@pytest.fixture
def certified(tiny_model, tmp_path):
    loaded, patch, rows, measured = make(tiny_model("llama"), tmp_path)
    certify(loaded, patch, rows, measured)
    return patch


def test_it_says_what_changed_and_leaves_the_model_as_found(tiny_model, tmp_path, kind):
    loaded, patch, rows, measured = make(tiny_model(kind), tmp_path)
    before = tensor_digests(loaded.model)
    tokenizer = tokenizer_digests(loaded)
    certificate = certify(loaded, patch, rows, measured, tokenizer)
    assert tensor_digests(loaded.model) == before
    manifest = read_patch(patch).manifest
    assert certificate["changed"] == list(manifest["parameters"])
    assert certificate["tensors"] == len(manifest["base"]["tensors"])
    assert certificate["fingerprint_before"] == manifest["base"]["fingerprint"] != certificate["fingerprint_after"]
    assert certificate["outputs"] == {"rows": 3, "sha256": measured}
    assert certificate["tokenizer"]["tokenizer.json"] == digest_file(tiny_model(kind) / "tokenizer.json")
    assert json.loads((patch / "certificate.json").read_text()) == certificate
    assert check_certificate(patch) == []


def test_the_outputs_of_base_and_patch_differ_and_follow_the_rows(tiny_model, tmp_path):
    loaded, patch, rows, measured = make(tiny_model("llama"), tmp_path)
    assert output_digest(loaded, rows) != measured
    assert output_digest(loaded, rows) == output_digest(loaded, rows) != output_digest(loaded, rows[::-1])
    with pytest.raises(RefusedError, match="does not reproduce the measured outputs of its 3 rows"):
        certify(loaded, patch, rows, output_digest(loaded, rows))
    assert not (patch / "certificate.json").exists()


def test_a_moved_tensor_elsewhere_is_refused_by_name(tiny_model, tmp_path):
    loaded, patch, rows, _ = make(tiny_model("llama"), tmp_path)
    loaded.model.get_parameter("model.layers.0.mlp.up_proj.weight")[0, 0] += 1e-3
    with pytest.raises(RefusedError, match=r"not located differ from the base model: model\.layers\.0\.mlp\.up_proj"):
        certify(loaded, patch, rows)


def test_a_tensor_that_changed_unseen_is_refused_though_its_digest_is_remembered(tiny_model, tmp_path):
    """A write through `.data` escapes the memory of digests, before the patch was saved or after, and not the proof."""
    for place, early in (("model.layers.0.mlp.up_proj", True), ("model.layers.3.mlp.up_proj", False)):
        loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
        open_answer_cache = known_digests(loaded.model)
        if early:
            loaded.model.get_parameter(f"{place}.weight").data.mul_(1.5)
            assert known_digests(loaded.model) == open_answer_cache
        patch = save_patch(tmp_path / place, loaded, locate(loaded.model, "2:down"), {}, Settings(), {}, {})
        if not early:
            loaded.model.get_parameter(f"{place}.weight").data.mul_(1.5)
        with pytest.raises(RefusedError, match=rf"not located differ from the base model: {re.escape(place)}"):
            certify(loaded, patch, [])


def test_a_moved_buffer_is_refused_by_name(tiny_model, tmp_path):
    loaded, patch, rows, _ = make(tiny_model("llama"), tmp_path)
    next(loaded.model.buffers()).mul_(1.5)
    with pytest.raises(RefusedError, match=r"inv_freq"):
        certify(loaded, patch, rows)


def test_the_model_must_hold_the_base_weights(tiny_model, tmp_path):
    loaded, patch, rows, _ = make(tiny_model("llama"), tmp_path)
    write_values(loaded.model, read_patch(patch).new)
    with pytest.raises(RefusedError, match=r"does not hold the base weights of the patch: model\.layers\.2\.mlp"):
        certify(loaded, patch, rows)


@pytest.mark.parametrize(
    ("file", "words"), [("undo.safetensors", "old values"), ("patch.safetensors", "that the manifest states")]
)
def test_values_other_than_the_manifests_are_refused(tiny_model, tmp_path, file, words):
    loaded, patch, rows, _ = make(tiny_model("llama"), tmp_path)
    save_file({name: value * 2 for name, value in load_file(patch / file).items()}, patch / file)
    manifest = json.loads((patch / "manifest.json").read_text())
    manifest["files"][file] = digest_file(patch / file)
    write_json(patch / "manifest.json", manifest)
    before = tensor_digests(loaded.model)
    with pytest.raises(RefusedError, match=words):
        certify(loaded, patch, rows)
    assert tensor_digests(loaded.model) == before


def test_a_tokenizer_that_changed_meanwhile_is_refused(tiny_model, tmp_path):
    shutil.copytree(tiny_model("llama"), tmp_path / "model")
    loaded, patch, rows, _ = make(tmp_path / "model", tmp_path)
    before = tokenizer_digests(loaded)
    (tmp_path / "model" / "tokenizer_config.json").write_text("{}")
    with pytest.raises(RefusedError, match=r"tokenizer_config\.json"):
        certify(loaded, patch, rows, tokenizer_before=before)


def test_a_hub_models_tokenizer_is_hashed_as_saved(tiny_model):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    assert "tokenizer.json" in tokenizer_digests(replace(loaded, source="owner/model"))


@pytest.mark.parametrize("file", ["patch.safetensors", "undo.safetensors", "manifest.json"])
def test_tampering_is_detected(certified, file):
    content = bytearray((certified / file).read_bytes())
    content[-20] ^= 1
    (certified / file).write_bytes(content)
    (problem,) = check_certificate(certified)
    assert problem.startswith(f"{file} in ")
    (certified / file).unlink()
    assert check_certificate(certified) == [f"{file} is gone from '{certified}'."]


@pytest.mark.parametrize("key", ["fingerprint_before", "fingerprint_after", "changed", "tensors"])
def test_a_certificate_that_contradicts_the_manifest_is_told(certified, key):
    certificate = json.loads((certified / "certificate.json").read_text())
    write_json(certified / "certificate.json", certificate | {key: "other"})
    assert check_certificate(certified) == [
        f"certificate.json states another '{key}' than the manifest it vouches for."
    ]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 1}', '{"schema": 2, "files": {}}', '{"schema": 3}'])
def test_a_broken_or_absent_certificate_is_a_problem_not_a_crash(certified, content):
    (certified / "certificate.json").write_text(content)
    (problem,) = check_certificate(certified)
    assert "certificate.json" in problem
    (certified / "certificate.json").unlink()
    assert "no certificate.json" in check_certificate(certified)[0]


def test_a_folder_without_a_patch_is_refused(tiny_model, tmp_path):
    with pytest.raises(InputError, match="not a patch folder"):
        certify(load_model(ModelSettings(path=str(tiny_model("llama")))), tmp_path, [])


def test_norms_are_relative_to_the_old_values(certified):
    patch = replace(
        read_patch(certified),
        new={"a": torch.tensor([[3.0, 4.0]]), "b": torch.tensor([[3.0, 4.0]])},
        old={"a": torch.tensor([[3.0, 0.0]]), "b": torch.zeros(1, 2)},
    )
    assert change_norms(patch) == pytest.approx({"a": 4 / 3, "b": 5.0})
