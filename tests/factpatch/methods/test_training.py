import math
import shutil
from dataclasses import replace

import pytest
import torch

from factpatch.errors import RefusedError
from factpatch.methods.base import EditJob, TrainingRows
from factpatch.methods.breadth_first.training import breadth_first
from factpatch.methods.checkpoint import CheckpointPolicy
from factpatch.methods.depth_first.training import depth_first
from factpatch.models.encoding import encode_edit
from factpatch.models.forward import collate, edit_losses, predict_whole, token_losses
from factpatch.models.loading import load_model, preserved, tensor_digests, write_values
from factpatch.models.locations import default_module, locate
from factpatch.settings.config import ModelSettings, TrainingSettings, TrunkSettings

PAIRS = (("The capital of France is", "Tokyo"), ("Who?", "Robert C. Newton"), ("東京 is in", "Brazil"))
SETTINGS = TrainingSettings(
    learning_rate=3e-2, schedule="constant", batch_size=2, epochs=200, revisit=False, stop_loss=0.2
)


def prepare(folder, **model):
    loaded = load_model(ModelSettings(path=str(folder), **model))
    location = locate(loaded.model, f"2:{default_module(loaded.model)}")
    return loaded, location, [encode_edit(loaded.tokenizer, *pair) for pair in PAIRS]


def job_of(loaded, location, rows, settings):
    return EditJob(loaded, location, TrainingRows(tuple(rows)), settings, trunk=TrunkSettings(folder=None))


def train(loaded, location, rows, settings, method=breadth_first):
    job = job_of(loaded, location, rows, settings)
    with job.opened() as opened:
        return method(job, opened)


@pytest.mark.parametrize("method", [breadth_first, depth_first])
def test_training_learns_and_leaves_the_model_as_found(tiny_model, kind, method):
    loaded, location, rows = prepare(tiny_model(kind))
    before = tensor_digests(loaded.model)
    result = train(loaded, location, rows, SETTINGS, method)
    assert tensor_digests(loaded.model) == before
    assert set(result.values) == set(location.parameters)
    assert result.losses[-1] < SETTINGS.stop_loss
    with preserved(loaded.model, location.parameters), torch.no_grad():
        write_values(loaded.model, result.values)
        predictions = predict_whole(loaded.model, collate(rows[-1:], loaded.tokenizer.eos_token_id))
        assert edit_losses(predictions, token_losses(predictions)).item() < 2 * SETTINGS.stop_loss
    assert tensor_digests(loaded.model) == before
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert not any(module.__dict__.get("forward") for module in loaded.model.modules())


def test_training_ends_when_a_check_finds_every_edit_learnt(tiny_model, kind):
    loaded, location, rows = prepare(tiny_model(kind))
    settings = replace(SETTINGS, revisit=True, confidence=0.5, schedule="decay")
    result = train(loaded, location, rows, settings)
    assert result.unsure == ()
    assert len(result.losses) < settings.epochs
    assert result.visits < len(rows) * len(result.losses)
    with preserved(loaded.model, location.parameters), torch.no_grad():
        write_values(loaded.model, result.values)
        predictions = predict_whole(loaded.model, collate(rows, loaded.tokenizer.eos_token_id))
    assert token_losses(predictions).max() <= -math.log(settings.confidence) + 1e-3


def test_what_is_not_learnt_at_the_end_is_told(tiny_model):
    loaded, location, rows = prepare(tiny_model("llama"))
    result = train(loaded, location, rows, replace(SETTINGS, revisit=True, epochs=1))
    assert result.unsure == (0, 1, 2)
    assert train(loaded, location, rows, replace(SETTINGS, epochs=1)).unsure is None


def test_one_seed_one_result(tiny_model):
    loaded, location, rows = prepare(tiny_model("llama"))
    runs = [train(loaded, location, rows, replace(SETTINGS, epochs=3, seed=seed)) for seed in (1, 1, 2)]
    (name,) = location.parameters
    assert torch.equal(runs[0].values[name], runs[1].values[name])
    assert not torch.equal(runs[0].values[name], runs[2].values[name])


@pytest.mark.parametrize("confidence", [1e-9, 0.5])
def test_a_run_resumed_at_any_epochs_end_is_the_same(tiny_model, tmp_path, confidence):
    """Also where the first epoch finds all edits learnt, as a confidence of nearly zero has it."""
    loaded, location, rows = prepare(tiny_model("llama"))
    settings = replace(SETTINGS, revisit=True, schedule="decay", epochs=8)
    object.__setattr__(settings, "confidence", confidence)  # past the bound that settings have
    path, copies = tmp_path / "run.safetensors", []

    def keep_copy(*at):
        copies.append(tmp_path / f"{len(copies)}.safetensors")
        shutil.copy(path, copies[-1])

    job, policy = job_of(loaded, location, rows, settings), CheckpointPolicy(path, {}, resume=False, seconds=0.0)
    with job.opened() as opened:
        whole = breadth_first(replace(job, progress=keep_copy, checkpoint=policy), opened)
        assert len(copies) == len(whole.losses)
        for copy in copies:
            policy = CheckpointPolicy(copy, {}, resume=True, seconds=60.0)
            again = breadth_first(replace(job, checkpoint=policy), opened)
            assert replace(again, values={}) == replace(whole, values={})
            assert all(torch.equal(value, whole.values[name]) for name, value in again.values.items())


def test_a_loss_that_is_not_finite_stops_before_a_step(tiny_model):
    loaded, location, rows = prepare(tiny_model("llama"))
    norm = loaded.model.get_parameter("model.norm.weight")
    with preserved(loaded.model, ["model.norm.weight"]):
        norm.fill_(float("nan"))
        with pytest.raises(RefusedError, match="nothing was written"):
            train(loaded, location, rows, SETTINGS)
        (name,) = location.parameters
        assert torch.isfinite(loaded.model.get_parameter(name)).all()


def test_activations_that_are_not_finite_are_refused(tiny_model):
    loaded, location, rows = prepare(tiny_model("llama"))
    with preserved(loaded.model, ["model.layers.0.mlp.down_proj.weight"]):
        loaded.model.get_parameter("model.layers.0.mlp.down_proj.weight").fill_(float("inf"))
        with pytest.raises(RefusedError, match="layer 2 are not finite"):
            train(loaded, location, rows, SETTINGS)


def test_masters_stay_float32_when_the_model_is_not(tiny_model):
    loaded, location, rows = prepare(tiny_model("llama"), dtype="bfloat16")
    result = train(loaded, location, rows, replace(SETTINGS, learning_rate=1e-2, epochs=60))
    assert result.losses[-1] < result.losses[0] / 4
    assert all(value.dtype == torch.bfloat16 for value in result.values.values())
