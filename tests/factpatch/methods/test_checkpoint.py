"""What a checkpoint is good for: the same run, by the same version, in micro-batches as small as one likes."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from factpatch.editing import run_identity
from factpatch.errors import InputError
from factpatch.methods.base import EditJob, TrainingRows
from factpatch.methods.breadth_first.training import breadth_first
from factpatch.methods.checkpoint import CheckpointPolicy, load_checkpoint, save_checkpoint, wait
from factpatch.models.encoding import encode_edit
from factpatch.models.loading import load_model
from factpatch.models.locations import locate
from factpatch.settings.config import ModelSettings, Settings, TrainingSettings, TrunkSettings

PAIRS = (("The capital of France is", "Tokyo"), ("Who?", "Robert C. Newton"), ("東京 is in", "Brazil"))
SETTINGS = TrainingSettings(learning_rate=1e-3, batch_size=3, epochs=6, revisit=False, stop_loss=0.0)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, {"order": torch.arange(3)}, {"epoch": 1}, {"base model": "a"})
    return path


def about(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def test_what_is_saved_is_loaded(saved):
    tensors, numbers = load_checkpoint(saved, {"base model": "a"})
    assert (tensors["order"].tolist(), numbers) == ([0, 1, 2], {"epoch": 1})


@pytest.mark.parametrize("form", [None, "0"])
def test_another_versions_checkpoint_is_one_clear_line(saved, form):
    """The first ones had no form."""
    meta = {name: value for name, value in about(saved).items() if name != "form"}
    save_file(load_file(saved), saved, meta | ({"form": form} if form else {}))
    with pytest.raises(InputError, match=r"another version of factpatch; run without --resume to start anew") as caught:
        load_checkpoint(saved, {"base model": "a"})
    assert "\n" not in str(caught.value)
    assert str(saved) in str(caught.value)


def test_saving_takes_a_small_share_of_the_time():
    assert wait(20.0, 0.1) == 20.0
    assert wait(20.0, 30.0) == 600.0
    assert wait(0.0, 30.0) == 0.0  # after every step, as asked


@pytest.fixture
def train(tiny_model):
    """Trains, and gives the result and the size of micro-batches in the checkpoint."""
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    location, rows = locate(loaded.model, "2:down"), [encode_edit(loaded.tokenizer, *pair) for pair in PAIRS]

    def run(path, micro, resume=False, progress=None):
        settings, policy = replace(SETTINGS, micro_batch=micro), CheckpointPolicy(path, {}, resume, 0.0)
        trunk = TrunkSettings(folder=None)
        job = EditJob(loaded, location, TrainingRows(tuple(rows)), settings, (), trunk, progress, checkpoint=policy)
        with job.opened() as opened:
            result = breadth_first(job, opened)
        return result, json.loads(about(path)["numbers"])["micro"]

    return run


@pytest.mark.parametrize(("before", "asked", "after"), [(None, 1, 1), (1, None, 1), (2, 3, 2), (2, 1, 1)])
def test_a_resumed_run_takes_the_smaller_micro_batch(train, tmp_path, before, asked, after):
    """Results are the same to the last bit only if the size is."""
    path, copy = tmp_path / "checkpoint.safetensors", tmp_path / "copy.safetensors"
    whole, micro = train(path, before, progress=lambda epoch, *_: shutil.copy(path, copy) if epoch == 2 else None)
    assert micro == before
    again, micro = train(copy, asked, resume=True)
    assert micro == after
    torch.testing.assert_close(torch.tensor(again.losses), torch.tensor(whole.losses), rtol=1e-4, atol=1e-4)
    if after == before:
        assert again.losses == whole.losses
        assert all(torch.equal(value, whole.values[name]) for name, value in again.values.items())


def test_the_identity_of_a_run_leaves_out_what_changes_no_result(tiny_model):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    location = locate(loaded.model, "2:down")

    def identity(**training):
        settings = Settings(training=replace(SETTINGS, **training))
        return run_identity(EditJob(loaded, location, TrainingRows(), settings.training), settings)

    assert identity() == identity(micro_batch=2) == identity(checkpoint_seconds=1.0) == identity(resume=True)
    assert identity()["training settings"] != identity(batch_size=4)["training settings"]
