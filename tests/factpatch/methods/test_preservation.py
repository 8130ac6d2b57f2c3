"""The divergence term, by hand, and how it enters a step."""

import math

import pytest
import torch

from factpatch.frozen_trunk import open_rows
from factpatch.methods.master_weights import masters_of
from factpatch.methods.optimizer import Stepper
from factpatch.methods.preservation import PreservationTerm, base_bytes, divergence
from factpatch.models.encoding import Encoded
from factpatch.models.forward import token_losses
from factpatch.models.loading import load_model
from factpatch.models.locations import locate
from factpatch.settings.config import ModelSettings, TrunkSettings

ROWS = [Encoded((5, 6, 7, 0), 2), Encoded((8, 9, 0), 1), Encoded((4, 9, 8, 7, 0), 3)]
MEMORY = TrunkSettings(folder=None)


def test_the_divergence_of_two_distributions_by_hand():
    """Base (1/2, 1/4, 1/4) and now (1/4, 1/2, 1/4): 1/2 ln 2 - 1/4 ln 2; equal ones diverge by nothing."""
    base_PV = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]]).log()
    logits_PV = torch.tensor([[0.25, 0.5, 0.25], [0.25, 0.5, 0.25]]).log() + 3.0
    torch.testing.assert_close(divergence(logits_PV, base_PV), torch.tensor([0.25 * math.log(2), 0.0]))


def test_its_gradient_is_the_difference_of_the_probabilities():
    base_PV = torch.tensor([[0.5, 0.25, 0.25]]).log()
    logits_PV = torch.tensor([[0.25, 0.5, 0.25]]).log().requires_grad_(True)
    divergence(logits_PV, base_PV).sum().backward()
    torch.testing.assert_close(logits_PV.grad, torch.tensor([[-0.25, 0.25, 0.0]]))


@pytest.mark.parametrize("place", ["3:down", "1:mlp"])
def test_only_kept_rows_take_the_term_and_at_the_base_it_is_nothing(tiny_model, kind, place):
    loaded = load_model(ModelSettings(path=str(tiny_model(kind))))
    location = locate(loaded.model, place)
    with open_rows(loaded, location, ROWS, MEMORY) as rows, masters_of(loaded.model, location) as masters:
        preservation_term = PreservationTerm(rows, masters, first=1)
        with torch.no_grad():
            predictions = rows.predict([2, 0])
            plain_P = token_losses(predictions)
            recalled = preservation_term.recall([2, 0])
            loss_P = preservation_term.apply(predictions, plain_P, [2, 0], recalled, 2.0)
            edit_P = predictions.row_P == 1
            assert torch.equal(loss_P[edit_P], plain_P[edit_P])
            torch.testing.assert_close(loss_P[~edit_P], torch.zeros_like(loss_P[~edit_P]), atol=1e-5, rtol=0)
            masters.tensors[0].mul_(1.5)
            masters.write_back()
            moved = rows.predict([2, 0])
            loss_P = preservation_term.apply(moved, token_losses(moved), [2, 0], recalled, 2.0)
            kept_P = (moved.row_P == 0) & moved.real_P
            wanted_PV, found_PV = predictions.logits_PV[kept_P].log_softmax(-1), moved.logits_PV[kept_P].log_softmax(-1)
            wanted_P = 2.0 * (wanted_PV.exp() * (wanted_PV - found_PV)).sum(-1)
            torch.testing.assert_close(loss_P[kept_P], wanted_P, rtol=1e-3, atol=1e-4)
            assert loss_P[~moved.real_P].eq(0).all()


@pytest.mark.parametrize("place", ["3:down", "1:mlp"])
def test_without_memory_the_base_is_asked_again_to_the_same_gradients(tiny_model, kind, place):
    loaded = load_model(ModelSettings(path=str(tiny_model(kind))))
    location = locate(loaded.model, place)
    found = []
    for memory_gb in (1.0, 0.0):
        with open_rows(loaded, location, ROWS, MEMORY) as rows, masters_of(loaded.model, location) as masters:
            assert base_bytes(rows.rows[1:], rows.vocabulary) == 4 * 4 * rows.vocabulary
            stepper = Stepper(rows, masters, 1e-2, 2, PreservationTerm(rows, masters, 1, memory_gb=memory_gb))
            losses = []
            for _ in range(3):
                losses.append(stepper.gradients([0, 1, 2])[0])
                stepper.step()
            found.append((losses, [tensor.clone() for tensor in masters.tensors]))
    (kept, held), (asked, again) = found
    assert kept == pytest.approx(asked, rel=1e-4)
    for one, other in zip(held, again, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=5e-4)


def test_answers_are_kept_by_their_cross_entropy(tiny_model):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    location = locate(loaded.model, "3:down")
    with open_rows(loaded, location, ROWS, MEMORY) as rows, masters_of(loaded.model, location) as masters:
        predictions = rows.predict([0, 1])
        loss_P = token_losses(predictions)
        weighed_P = PreservationTerm(rows, masters, 1, targets=True).apply(predictions, loss_P, [0, 1], [], 0.5)
        torch.testing.assert_close(weighed_P, loss_P * torch.where(predictions.row_P == 1, 0.5, 1.0))
