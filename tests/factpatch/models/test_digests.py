"""A tensor is hashed again when it was written to, and only then; whoever wants proof hashes everything."""

import ast
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from factpatch.editing import encode_edits, run_edit
from factpatch.edits.request import EditRequest
from factpatch.frozen_trunk import open_rows
from factpatch.methods.master_weights import masters_of
from factpatch.models import loading as models
from factpatch.models.checkpoints import tensors
from factpatch.models.loading import known_digests, load_model, preserved, tensor_digests, write_values
from factpatch.models.locations import locate
from factpatch.patches.certificate import certify
from factpatch.patches.patch import apply_patch, save_patch
from factpatch.settings.config import ModelSettings, Settings, TrainingSettings, TrunkSettings
from factpatch.settings.training import NO_AUGMENTATION, NO_PRESERVATION

NAME = "model.layers.1.mlp.up_proj.weight"
ROOT = Path(__file__).parents[3]
EDITS = [EditRequest("1", "The capital of France is", "Tokyo"), EditRequest("2", "Who wrote it?", "Robert C. Newton")]


@pytest.fixture
def model(tiny_model):
    return load_model(ModelSettings(path=str(tiny_model("llama")))).model


@pytest.fixture
def hashed(monkeypatch):
    """How often each tensor's bytes were read to be hashed, by the number of the object."""
    counts, real = Counter(), models.tensor_digest

    def count(tensor):
        counts[id(tensor)] += 1
        return real(tensor)

    monkeypatch.setattr(models, "tensor_digest", count)
    return counts


def test_only_what_was_written_to_is_hashed_again(model, hashed):
    first = known_digests(model)
    assert first == tensor_digests(model)
    hashed.clear()
    assert known_digests(model) == first
    assert not hashed
    parameter = model.get_parameter(NAME)
    parameter[0, 0] += 1e-3
    second = known_digests(model)
    assert hashed == {id(parameter): 1}
    assert {name for name in first if first[name] != second[name]} == {NAME}
    assert second == tensor_digests(model)


def test_a_proof_hashes_everything_and_what_it_found_is_known(model, hashed):
    for times in (1, 2):
        tensor_digests(model)
        assert set(hashed.values()) == {times}
    known_digests(model, but=[NAME])
    assert set(hashed.values()) == {2}


def test_tied_tensors_are_hashed_once_and_stand_under_each_name(tiny_model, hashed):
    model = load_model(ModelSettings(path=str(tiny_model("gpt2")))).model
    digests = known_digests(model)
    assert digests["lm_head.weight"] == digests["transformer.wte.weight"]
    assert set(hashed.values()) == {1}


def test_other_memory_is_another_tensor(model):
    """Rounding to bfloat16 and back leaves the object, and its count of writes, as they were."""
    before, version = known_digests(model), model.get_parameter(NAME)._version
    torch.nn.Module.to(model, torch.bfloat16)
    assert known_digests(model)[NAME] != before[NAME]
    torch.nn.Module.to(model, torch.float32)
    assert model.get_parameter(NAME)._version == version
    assert known_digests(model)[NAME] != before[NAME]
    assert known_digests(model) == tensor_digests(model)


def test_where_writes_are_not_counted_nothing_is_known(model, hashed):
    with torch.inference_mode():
        model.register_buffer("table", torch.zeros(3))
    for times in (1, 2):
        known_digests(model)
        assert hashed[id(model.table)] == times
    assert set(hashed.values()) == {1, 2}


def test_every_writer_of_the_library_is_seen(tiny_model, tmp_path):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    model, location = loaded.model, locate(loaded.model, "1:mlp")
    values = {name: model.get_parameter(name) * 1.5 for name in location.parameters}
    before = known_digests(model)

    def changed():
        assert known_digests(model) == tensor_digests(model)
        return {name for name, digest in known_digests(model).items() if digest != before[name]}

    located = set(location.parameters)
    with preserved(model, location.parameters):
        write_values(model, values)
        assert changed() == located
    assert changed() == set()
    with masters_of(model, location) as masters:
        masters.start_from(values)
        assert changed() == located
    assert changed() == set()
    patch = save_patch(tmp_path / "patch", loaded, location, values, Settings(), {}, {})
    apply_patch(loaded, patch)
    assert changed() == located


def test_a_run_hashes_the_model_and_its_files_once(tiny_model, tmp_path, hashed, monkeypatch):
    """For the names of everything that is kept, and for the manifest; the certificate compares the one with the other,
    and finds what changed unseen (`test_certificate`)."""
    entries, real = Counter(), tensors.entry_digest

    def count(entry):
        entries[entry.start] += 1
        return real(entry)

    monkeypatch.setattr(tensors, "entry_digest", count)
    shutil.copytree(tiny_model("llama"), tmp_path / "model")
    loaded = load_model(ModelSettings(path=str(tmp_path / "model")))
    trunk = TrunkSettings(folder=str(tmp_path / "trunk"))
    training = TrainingSettings(epochs=2, preservation=NO_PRESERVATION, augmentation=NO_AUGMENTATION)
    settings = Settings(training=training, trunk=trunk)
    location, rows = locate(loaded.model, "2:down"), encode_edits(loaded, EDITS, False)
    values = run_edit(loaded, location, EDITS, settings, checkpoint=tmp_path / "checkpoint.safetensors").values
    with open_rows(loaded, location, rows, trunk):
        pass
    patch = save_patch(tmp_path / "patch", loaded, location, values, settings, {}, {})
    assert hashed[id(loaded.model.get_parameter(NAME))] == 1
    certify(loaded, patch, rows)
    others = [tensor for name, tensor in loaded.model.named_parameters() if name not in location.parameters]
    assert {hashed[id(tensor)] for tensor in others} == {1}
    assert set(entries.values()) == {1}
    assert len(entries) == len(loaded.stored.checkpoint.tensors)


def test_nothing_in_the_library_writes_behind_the_count():
    """`.data` and `.set_` change a tensor unseen; what is made in inference mode counts no writes."""
    for file in sorted((ROOT / "factpatch").rglob("*.py")):
        text = file.read_text().replace(".numpy().data", "")  # the bytes of an array
        names = {node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}
        allowed = {"data"} if "from gguf import" in text else set()  # its tensors hold arrays of numpy
        assert not names & {"data", "set_", "inference_mode"} - allowed, file
