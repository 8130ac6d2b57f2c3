"""Low-rank factors in place of the matrices: the chain rule by hand, and a run that leaves a patch of that rank."""

from dataclasses import replace

import pytest
import torch

from factpatch.frozen_trunk import open_rows
from factpatch.methods.base import EditJob, TrainingRows
from factpatch.methods.breadth_first.training import breadth_first
from factpatch.methods.master_weights import SCALE, masters_of
from factpatch.models.encoding import Encoded
from factpatch.models.loading import load_model, tensor_digests
from factpatch.models.locations import locate
from factpatch.settings.config import ModelSettings, TrainingSettings, TrunkSettings

ROWS = [Encoded((5 + number, 6, 7 + number, 0), 2) for number in range(6)]
SETTINGS = TrainingSettings(learning_rate=1e-2, batch_size=3, epochs=8, rank=2)


def test_gradients_of_the_factors_follow_from_the_matrix_s(tiny_model, kind):
    loaded = load_model(ModelSettings(path=str(tiny_model(kind))))
    location = locate(loaded.model, "2:down")
    (name,) = location.parameters
    parameter = loaded.model.get_parameter(name)
    with masters_of(loaded.model, location, rank=2, seed=1) as masters:
        reading, writing = masters.tensors
        writing.normal_(generator=torch.Generator().manual_seed(2))
        start = parameter.detach().clone()
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
        slope = parameter.grad.clone()
        masters.take_gradients()
        reading_, writing_ = (factor.clone().requires_grad_(True) for factor in (reading, writing))
        ((start + SCALE * writing_ @ reading_) * slope).sum().backward()
        torch.testing.assert_close(reading.grad, reading_.grad)
        torch.testing.assert_close(writing.grad, writing_.grad)


def test_factors_begin_as_peft_s_do(tiny_model, kind):
    """The side that a matrix reads is uniform within one over the root of its size, the other zero, and W is W0."""
    loaded = load_model(ModelSettings(path=str(tiny_model(kind))))
    location = locate(loaded.model, "2:down")
    with masters_of(loaded.model, location, rank=8, seed=1) as masters:
        reading, writing = masters.tensors
        random, zero = (writing, reading) if kind == "gpt2" else (reading, writing)
        read = random.numel() // 8
        assert read == max(loaded.model.get_parameter(location.parameters[0]).shape)
        assert (zero == 0).all()
        assert 0.9 * read**-0.5 < random.abs().max() <= read**-0.5
        assert abs(random.std() * (3 * read) ** 0.5 - 1) < 0.1
        assert torch.equal(masters.merged()[0], loaded.model.get_parameter(location.parameters[0]))


@pytest.mark.parametrize("place", ["3:mlp", "1:attention", "0-3:"])
def test_a_run_leaves_a_difference_of_the_rank(tiny_model, kind, place):
    loaded = load_model(ModelSettings(path=str(tiny_model(kind))))
    before = tensor_digests(loaded.model)
    location = locate(loaded.model, place)
    with open_rows(loaded, location, ROWS, TrunkSettings(folder=None)) as rows:
        job = EditJob(loaded, location, TrainingRows(rows.rows[:4], preserved=rows.rows[4:]), SETTINGS)
        result = breadth_first(job, rows)
        again = breadth_first(job, rows)
        other = breadth_first(replace(job, training=replace(SETTINGS, seed=1)), rows)
    assert tensor_digests(loaded.model) == before
    assert result.losses[-1] < result.losses[0]
    for name, value in result.values.items():
        assert torch.linalg.matrix_rank(value - loaded.model.get_parameter(name), rtol=1e-4) == 2
        assert torch.equal(value, again.values[name])
        assert not torch.equal(value, other.values[name])
