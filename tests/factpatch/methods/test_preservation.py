"""The divergence term, by hand, and how it enters a step."""

import math

import pytest
import torch

from factpatch.frozen_trunk import open_rows
from factpatch.methods import preservation
from factpatch.methods.master_weights import masters_of
from factpatch.methods.optimizer import Stepper
from factpatch.methods.preservation import PreservationTerm, divergence
from factpatch.models.encoding import Encoded
from factpatch.models.forward import only_tokens, token_losses
from factpatch.models.loading import load_model
from factpatch.models.locations import locate
from factpatch.settings.config import ModelSettings, TrunkSettings

ROWS = [Encoded((5, 6, 7, 0), 2), Encoded((8, 9, 0), 1), Encoded((4, 9, 8, 7, 0), 3)]
MEMORY = TrunkSettings(folder=None)


def test_the_divergence_of_two_distributions_by_hand():
    """Two tokens and the others: base (1/2, 1/4, 1/4) and now (1/4, 1/2, 1/4): 1/2 ln 2 - 1/4 ln 2; the others count
    too: now (1/2, 1/8, 3/8) gives 1/4 ln 2 + 1/4 ln 2/3; equal ones diverge by nothing."""
    base_PK = torch.tensor([[0.5, 0.25]]).log().expand(3, 2)
    now_PK = torch.tensor([[0.25, 0.5], [0.5, 0.125], [0.5, 0.25]]).log()
    by_hand = [0.25 * math.log(2), 0.25 * math.log(2) + 0.25 * math.log(2 / 3), 0.0]
    torch.testing.assert_close(divergence(now_PK, base_PK), torch.tensor(by_hand), atol=1e-6, rtol=1e-5)


def test_its_gradient_is_the_difference_of_the_probabilities():
    base_PK = torch.tensor([[0.5, 0.25]]).log()
    logits_PV = torch.tensor([[0.25, 0.5, 0.25]]).log().requires_grad_(True)
    divergence(logits_PV.log_softmax(-1)[:, :2], base_PK).sum().backward()
    torch.testing.assert_close(logits_PV.grad, torch.tensor([[-0.25, 0.25, 0.0]]), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("place", ["3:down", "1:mlp"])
def test_a_preserved_row_loses_nothing_at_the_base_and_its_divergence_when_moved(tiny_model, kind, place):
    loaded = load_model(ModelSettings(path=str(tiny_model(kind))))
    location = locate(loaded.model, place)
    with open_rows(loaded, location, ROWS, MEMORY) as rows, masters_of(loaded.model, location) as masters:
        term = PreservationTerm(rows, first=1)
        with torch.no_grad():
            base = rows.predict([2, 1])
            _, still_P = term.losses([2, 1], 2.0)
            torch.testing.assert_close(still_P, torch.zeros_like(still_P), atol=1e-4, rtol=0)
            masters.tensors[0].mul_(1.5)
            masters.write_back()
            moved, loss_P = term.losses([2, 1], 2.0)
        now_PV, was_PV = moved.logits_PV[moved.real_P].log_softmax(-1), base.logits_PV[base.real_P].log_softmax(-1)
        whole_P = 2.0 * (was_PV.exp() * (was_PV - now_PV)).sum(-1)
        found_P = loss_P[moved.real_P]
        # outcomes put together tell less, much less where a random model says all tokens alike
        assert ((0.4 * whole_P <= found_P) & (found_P <= whole_P)).all()
        assert loss_P[~moved.real_P].eq(0).all()


def test_a_sample_stands_for_the_tokens_that_are_left_out(tiny_model, monkeypatch):
    """Of 8 likeliest tokens and some others: all stand for the whole vocabulary, and the loss is near that of all."""
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    location = locate(loaded.model, "3:down")
    monkeypatch.setattr(preservation, "LIKELIEST", 8)
    with open_rows(loaded, location, ROWS, MEMORY) as rows, masters_of(loaded.model, location) as masters:
        term = PreservationTerm(rows, first=0)
        masters.tensors[0].mul_(3.0)
        masters.write_back()
        with torch.no_grad():
            whole = term.losses([0, 1, 2], 1.0)[1]
            monkeypatch.setattr(preservation, "SAMPLED", rows.vocabulary // 4)
            drawn = [term.losses(order, 1.0) for order in ([0, 1, 2], [0, 2, 1], [1, 0, 2], [2, 1, 0])]
        widths = {predictions.logits_PV.shape[-1] for predictions, _ in drawn}
        assert max(widths) < rows.vocabulary / 2
        sums = torch.stack([loss_P.sum() for _, loss_P in drawn])
        torch.testing.assert_close(sums.mean(), whole.sum(), rtol=0.1, atol=0)


def test_some_tokens_get_the_logits_that_they_get_among_all(tiny_model, kind):
    loaded = load_model(ModelSettings(path=str(tiny_model(kind))))
    tokens_S = torch.tensor([3, 9, 27])
    with open_rows(loaded, None, ROWS, MEMORY) as rows, torch.no_grad():
        whole, some = rows.predict([0, 2]), rows.predict([0, 2], tokens_S)
    torch.testing.assert_close(some.logits_PV, whole.logits_PV[:, tokens_S], rtol=1e-4, atol=1e-5)


def test_the_model_is_whole_again_after_a_failure(tiny_model):
    model = load_model(ModelSettings(path=str(tiny_model("llama")))).model
    with pytest.raises(ZeroDivisionError), only_tokens(model, torch.tensor([1])):
        raise ZeroDivisionError
    assert "forward" not in vars(model.get_output_embeddings())


def test_a_step_weighs_preserved_rows_beside_edits(tiny_model):
    """The loss of a batch is the mean over rows of both kinds, each row's own the mean over its tokens."""
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    location = locate(loaded.model, "3:down")
    with open_rows(loaded, location, ROWS, MEMORY) as rows, masters_of(loaded.model, location) as masters:
        term = PreservationTerm(rows, first=1)
        masters.tensors[0].mul_(1.5)
        masters.write_back()
        loss, hardest_B = Stepper(rows, masters, 1e-2, 2, term).gradients([2, 0, 1], weight=0.5)
        with torch.no_grad():
            edit_P, preserved_P = token_losses(rows.predict([0])), term.losses([2, 1], 0.5)[1]
        longer, shorter = len(ROWS[2].ids) - 3, len(ROWS[1].ids) - 1
        parts = preserved_P[:longer], preserved_P[longer:]
        assert loss == pytest.approx(
            float(edit_P.mean() + parts[0].sum() / longer + parts[1].sum() / shorter) / 3, rel=1e-4
        )
        torch.testing.assert_close(
            hardest_B, torch.stack([parts[0].max(), edit_P.max(), parts[1].max()]), rtol=1e-4, atol=1e-5
        )


def test_answers_are_preserved_by_their_cross_entropy(tiny_model):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    location = locate(loaded.model, "3:down")
    with open_rows(loaded, location, ROWS, MEMORY) as rows, torch.no_grad():
        wanted_P = token_losses(rows.predict([1, 2]))
        _, weighed_P = PreservationTerm(rows, 1, targets=True).losses([1, 2], 0.5)
        torch.testing.assert_close(weighed_P, 0.5 * wanted_P)
