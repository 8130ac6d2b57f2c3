"""Updates projected away from kept inputs, on tensors written by hand and on models."""

import pytest
import torch

from factpatch.frozen_trunk import open_rows
from factpatch.methods.master_weights import masters_of
from factpatch.methods.optimizer import Stepper
from factpatch.methods.projection import Projection, make_projection, projector, second_moments
from factpatch.models.encoding import Encoded
from factpatch.models.loading import load_model
from factpatch.models.locations import locate
from factpatch.settings.config import ModelSettings, TrunkSettings

ROWS = [Encoded((5 + number, 6, 7 + number, 0), 2) for number in range(6)]
MEMORY = TrunkSettings(folder=None)


def test_a_hard_projection_leaves_open_the_directions_of_least_variance():
    """Variances 8, 1 and 1: a tenth of all is 1, so exactly one direction stays open; a fifth opens two."""
    moment = torch.diag(torch.tensor([8.0, 1.0, 0.9]))
    torch.testing.assert_close(projector(moment, "hard", 0.1), torch.diag(torch.tensor([0.0, 0.0, 1.0])))
    torch.testing.assert_close(projector(moment, "hard", 0.2), torch.diag(torch.tensor([0.0, 1.0, 1.0])))


def test_a_soft_projection_shrinks_each_direction_by_its_variance():
    """The hard one would cut at variance 1, so a variance v leaves 1 / (1 + v)."""
    moment = torch.diag(torch.tensor([9.0, 1.0, 0.25]))
    wanted = torch.diag(torch.tensor([0.1, 0.5, 0.8]))
    torch.testing.assert_close(projector(moment, "soft", 0.03), wanted)


@pytest.mark.parametrize("last", [False, True])
def test_orthogonal_updates_leave_kept_outputs_unchanged(last):
    """Kept inputs span two of four dimensions; whatever the step was, their outputs stay, and others move."""
    torch.manual_seed(1)
    kept_PW = torch.randn(20, 2) @ torch.randn(2, 4)
    projection = Projection([projector(kept_PW.T @ kept_PW / 20, "hard", 1e-6)], [last])
    before, step, other_W = torch.randn(4, 3), torch.randn(4, 3), torch.randn(4)
    if not last:
        before, step = before.T.contiguous(), step.T.contiguous()
    after = before + step
    projection.apply([after], [before])
    output = (lambda inputs, weight: inputs @ weight) if last else (lambda inputs, weight: inputs @ weight.T)
    torch.testing.assert_close(output(kept_PW, after), output(kept_PW, before), rtol=0, atol=1e-5)
    assert (output(other_W, after) - output(other_W, before)).abs().max() > 1e-2


@pytest.mark.parametrize("place", ["3:down", "3:mlp", "1:mlp", "1:attention"])
def test_moments_are_those_of_the_real_positions(tiny_model, kind, place):
    """Packed, padded or whole, what is collected is what the model gives row by row."""
    loaded = load_model(ModelSettings(path=str(tiny_model(kind))))
    location = locate(loaded.model, place)
    rows = [*ROWS, Encoded((9, 8, 7, 6, 5, 4, 0), 5)]
    found = []
    for keep in (True, False):
        with open_rows(loaded, location, rows, TrunkSettings(folder=None, keep=keep)) as opened:
            together = second_moments(loaded.model, location.parameters, opened, range(len(rows)))
            single = [second_moments(loaded.model, location.parameters, opened, [index]) for index in range(len(rows))]
            lengths = opened.lengths
        for name, moment in together.items():
            wanted = sum(one[name] * length for one, length in zip(single, lengths, strict=True)) / sum(lengths)
            torch.testing.assert_close(moment, wanted, rtol=1e-3, atol=1e-4)
        found.append((together, opened.packed))
    assert set(found[0][0]) == set(location.parameters)
    if not found[0][1]:  # a packed run sees the positions that predict alone
        for name in location.parameters:
            torch.testing.assert_close(found[0][0][name], found[1][0][name], rtol=1e-3, atol=1e-4)


def test_adam_s_steps_stay_within_the_open_directions(tiny_model, kind):
    loaded = load_model(ModelSettings(path=str(tiny_model(kind))))
    location = locate(loaded.model, "3:down")
    with open_rows(loaded, location, ROWS, MEMORY) as rows, masters_of(loaded.model, location) as masters:
        projection = make_projection(loaded.model, location.parameters, rows, [3, 4, 5], "hard", 1e-6)
        stepper = Stepper(rows, masters, 1e-1, None, projection=projection)
        before = rows.predict([3, 4, 5]).logits_PV
        edits = rows.predict([0]).logits_PV
        for _ in range(5):
            stepper.gradients([0, 1, 2])
            stepper.step()
        torch.testing.assert_close(rows.predict([3, 4, 5]).logits_PV, before, rtol=1e-3, atol=5e-3)
        assert (rows.predict([0]).logits_PV - edits).abs().max() > 5e-2
