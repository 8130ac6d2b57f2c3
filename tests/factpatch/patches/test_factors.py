"""A patch of a low-rank run holds the factors, and gives the same values from them, bit for bit."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from factpatch.errors import InputError
from factpatch.files import digest_file, read_json, write_json
from factpatch.methods.base import EditJob, TrainingRows
from factpatch.methods.breadth_first.training import breadth_first
from factpatch.models.encoding import Encoded
from factpatch.models.loading import load_model, tensor_digests
from factpatch.models.locations import locate
from factpatch.models.low_rank import with_difference
from factpatch.patches.patch import apply_patch, make_patch, read_patch
from factpatch.settings.config import ModelSettings, Settings, TrainingSettings, TrunkSettings

ROWS = TrainingRows(tuple(Encoded((5 + number, 6, 7 + number, 0), 2) for number in range(4)))
SETTINGS = TrainingSettings(learning_rate=1e-2, batch_size=2, epochs=3, rank=2, revisit=False)


def patched(tiny_model, kind, warm_start=None):
    """A model as loaded, a patch of a low-rank run, and its values."""
    loaded = load_model(ModelSettings(path=str(tiny_model(kind))))
    location = locate(loaded.model, "1-2:")
    job = EditJob(loaded, location, ROWS, SETTINGS, trunk=TrunkSettings(folder=None), warm_start=warm_start)
    with job.opened() as rows:
        result = breadth_first(job, rows)
    return loaded, make_patch(loaded, location, result.values, Settings(), {}, {}, result.factors), result.values


def test_a_difference_is_added_rank_by_rank():
    reading, writing = torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]]), torch.tensor([[1.0, 10.0], [2.0, 20.0]])
    wanted = torch.tensor([[2.0, 13.0, 4.0], [3.0, 25.0, 7.0]])
    assert torch.equal(with_difference(torch.ones(2, 3, dtype=torch.bfloat16), (reading, writing)), wanted)


def test_factors_stand_for_the_values(tiny_model, kind, tmp_path):
    loaded, patch, values = patched(tiny_model, kind)
    assert set(patch.factors) == set(patch.new)
    before = tensor_digests(loaded.model)
    folder = patch.save(tmp_path / "patch").folder
    held = load_file(folder / "patch.safetensors")
    assert len(held) == 2 * len(values)
    assert sum(value.numel() for value in held.values()) < sum(value.numel() for value in values.values()) / 2
    again = read_patch(folder)
    assert all(torch.equal(again.new[name], value) for name, value in patch.new.items())
    apply_patch(loaded, folder).undo(loaded.model)
    assert tensor_digests(loaded.model) == before
    assert read_patch(again.save(tmp_path / "copy").folder).after == patch.after


def test_values_that_factors_do_not_give_are_held_whole(tiny_model):
    """The factors of a warm start are differences from its values, not from the base model's."""
    _, _, values = patched(tiny_model, "llama")
    _, patch, _ = patched(tiny_model, "llama", {name: 1.1 * value for name, value in values.items()})
    assert patch.factors == {}


def test_factors_that_give_other_values_are_refused(tiny_model, tmp_path):
    _, patch, _ = patched(tiny_model, "llama")
    folder = patch.save(tmp_path / "patch").folder
    file = folder / "patch.safetensors"
    save_file({name: 2 * value for name, value in load_file(file).items()}, file)
    manifest = read_json(folder / "manifest.json")
    manifest["files"]["patch.safetensors"] = digest_file(file)
    write_json(folder / "manifest.json", manifest)
    with pytest.raises(InputError, match="do not give what its manifest describes"):
        read_patch(folder)
