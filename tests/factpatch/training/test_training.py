import math
import random
from dataclasses import replace

import pytest
import torch

from factpatch.config import ModelSettings, TrainingSettings
from factpatch.encoding import encode_edit
from factpatch.errors import RefusedError
from factpatch.forward import collate, edit_losses, target_logits
from factpatch.models import load_model, preserved, tensor_digests, write_values
from factpatch.structure import default_module, locate
from factpatch.training import breadth_first, depth_first
from factpatch.training.breadth_first import epoch_batches

PAIRS = (("The capital of France is", "Tokyo"), ("Who?", "Robert C. Newton"), ("東京 is in", "Brazil"))
SETTINGS = TrainingSettings(learning_rate=3e-2, batch_size=2, epochs=200, stop_loss=0.2)


def prepare(folder, **model):
    loaded = load_model(ModelSettings(path=str(folder), **model))
    location = locate(loaded.model, f"2:{default_module(loaded.model)}")
    return loaded, location, [encode_edit(loaded.tokenizer, *pair) for pair in PAIRS]


@pytest.mark.parametrize("method", [breadth_first, depth_first])
def test_training_learns_and_leaves_the_model_as_found(tiny_model, kind, method):
    loaded, location, rows = prepare(tiny_model(kind))
    before = tensor_digests(loaded.model)
    result = method(loaded, location, rows, SETTINGS)
    assert tensor_digests(loaded.model) == before
    assert set(result.values) == set(location.parameters)
    assert result.losses[-1] < SETTINGS.stop_loss
    with preserved(loaded.model, location.parameters), torch.no_grad():
        write_values(loaded.model, result.values)
        batch = collate(rows[-1:], loaded.tokenizer.eos_token_id)
        assert edit_losses(target_logits(loaded.model, batch), batch).item() < 2 * SETTINGS.stop_loss
    assert tensor_digests(loaded.model) == before
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_one_seed_one_result(tiny_model):
    loaded, location, rows = prepare(tiny_model("llama"))
    runs = [breadth_first(loaded, location, rows, replace(SETTINGS, epochs=3, seed=seed)) for seed in (1, 1, 2)]
    (name,) = location.parameters
    assert torch.equal(runs[0].values[name], runs[1].values[name])
    assert not torch.equal(runs[0].values[name], runs[2].values[name])


def test_a_step_follows_adam_on_the_mean_loss(tiny_model):
    """One full-batch step, against autograd and torch's Adam used plainly on the whole model."""
    loaded, location, rows = prepare(tiny_model("llama"))
    one = replace(SETTINGS, batch_size=3, epochs=1, learning_rate=1e-3)
    result = breadth_first(loaded, location, rows, one)
    plain = load_model(ModelSettings(path=loaded.source)).model
    parameter = plain.get_parameter(location.parameters[0]).requires_grad_(True)
    losses = []
    for row in rows:
        ids = torch.tensor([row.ids])
        labels = ids.clone()
        labels[0, : row.prompt_length] = -100
        losses.append(plain(ids, labels=labels).loss)
    torch.stack(losses).mean().backward()
    torch.optim.Adam([parameter], lr=1e-3).step()
    torch.testing.assert_close(result.values[location.parameters[0]], parameter.detach(), atol=2e-5, rtol=0)
    assert math.isclose(result.losses[0], torch.stack(losses).mean().item(), rel_tol=1e-4)


def test_a_loss_that_is_not_finite_stops_before_a_step(tiny_model):
    loaded, location, rows = prepare(tiny_model("llama"))
    norm = loaded.model.get_parameter("model.norm.weight")
    with preserved(loaded.model, ["model.norm.weight"]):
        norm.fill_(float("nan"))
        with pytest.raises(RefusedError, match="nothing was written"):
            breadth_first(loaded, location, rows, SETTINGS)
        (name,) = location.parameters
        assert torch.isfinite(loaded.model.get_parameter(name)).all()


def test_masters_stay_float32_when_the_model_is_not(tiny_model):
    loaded, location, rows = prepare(tiny_model("llama"), dtype="bfloat16")
    result = breadth_first(loaded, location, rows, replace(SETTINGS, learning_rate=1e-2))
    assert result.losses[-1] < result.losses[0] / 4
    assert all(value.dtype == torch.bfloat16 for value in result.values.values())


def test_an_epoch_visits_every_edit_once_in_full_batches():
    lengths = [random.Random(0).randrange(5, 50) for _ in range(1003)]
    batches = epoch_batches(lengths, 50, random.Random(1))
    assert sorted(index for batch in batches for index in batch) == list(range(1003))
    assert sorted(map(len, batches)) == [3] + [50] * 20
    padded = sum(max(lengths[index] for index in batch) * len(batch) for batch in batches)
    assert padded < 1.2 * sum(lengths)
    assert batches != epoch_batches(lengths, 50, random.Random(2))
