"""The mean over edits and the mean over tokens: by hand, in micro-batches, and beside preserved rows."""

from dataclasses import replace

import pytest
import torch

from factpatch.frozen_trunk import open_rows
from factpatch.methods.base import EditJob, TrainingRows
from factpatch.methods.breadth_first.training import breadth_first
from factpatch.methods.master_weights import masters_of
from factpatch.methods.optimizer import Stepper
from factpatch.methods.preservation import PreservationTerm
from factpatch.models.encoding import Encoded
from factpatch.models.forward import Predictions, token_losses
from factpatch.models.loading import load_model
from factpatch.models.locations import locate
from factpatch.settings.config import ModelSettings, TrainingSettings, TrunkSettings

ROWS = [Encoded((5, 6, 7, 8, 9, 0), 2), Encoded((8, 9, 0), 2), Encoded((4, 9, 8, 7, 0), 3)]  # of 4, 1 and 2 tokens
MEMORY = TrunkSettings(folder=None)


class GivenRows:
    """Rows whose token losses are numbers of ours: `logits` say how sure the model is of each target token."""

    layout = "padded"

    def __init__(self, losses):
        self.rows = [Encoded(tuple(range(len(own) + 1)), 1) for own in losses]
        self.lengths = [len(own) for own in losses]
        self._losses = losses

    def __len__(self):
        return len(self.rows)

    def predict(self, indices):
        own = [self._losses[index] for index in indices]
        right_P = torch.tensor([value for row in own for value in row]).neg().exp()
        logits_PV = torch.stack([right_P, 1 - right_P], 1).log().requires_grad_(True)
        row_P = torch.tensor([place for place, row in enumerate(own) for _ in row])
        whole_P = torch.ones(len(right_P), dtype=torch.bool)
        return Predictions(logits_PV, torch.zeros(len(right_P), dtype=torch.long), row_P, whole_P, len(own))


class NoMasters:
    tensors = (torch.zeros(1, requires_grad=True),)

    def clear_gradients(self): ...

    def take_gradients(self): ...

    def finish_gradients(self): ...

    def squared_norm(self):
        return torch.zeros(())


@pytest.mark.parametrize("micro", [None, 1, 2])
def test_both_means_by_hand(micro):
    """Losses (1, 2, 3), (4): over edits (2 + 4) / 2, over tokens 10 / 4."""
    rows = GivenRows([[1.0, 2.0, 3.0], [4.0]])
    for token_mean, wanted in ((False, 3.0), (True, 2.5)):
        loss, hardest_B = Stepper(rows, NoMasters(), 1e-3, micro, None, token_mean).gradients([1, 0])
        assert loss == pytest.approx(wanted, rel=1e-5)
        assert hardest_B.tolist() == pytest.approx([4.0, 3.0], rel=1e-5)


def loaded_at(tiny_model, place):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    return loaded, locate(loaded.model, place)


@pytest.mark.parametrize("place", ["3:down", "1:mlp"])
def test_micro_batches_do_not_change_the_mean_over_tokens(tiny_model, place):
    loaded, location = loaded_at(tiny_model, place)
    found = []
    with open_rows(loaded, location, ROWS, MEMORY) as rows, masters_of(loaded.model, location) as masters:
        for micro in (None, 1, 2):
            loss, _ = Stepper(rows, masters, 1e-3, micro, None, True).gradients([2, 0, 1])
            found.append((loss, masters.tensors[0].grad.clone()))
        with torch.no_grad():
            predictions = rows.predict([0, 1, 2])
            wanted = token_losses(predictions).sum() / 7
    for loss, gradient in found:
        assert loss == pytest.approx(wanted.item(), rel=1e-4)
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-3, atol=1e-5)


def test_preserved_rows_count_as_in_the_mean_over_edits(tiny_model):
    """Two edits of 4 and 1 tokens make two thirds of a batch of three rows, however long the preserved row is."""
    loaded, location = loaded_at(tiny_model, "3:down")
    with open_rows(loaded, location, ROWS, MEMORY) as rows, masters_of(loaded.model, location) as masters:
        term = PreservationTerm(rows, first=2)
        masters.tensors[0].mul_(1.5)
        masters.write_back()
        loss, _ = Stepper(rows, masters, 1e-3, 1, term, True).gradients([2, 0, 1], weight=0.5)
        with torch.no_grad():
            edits_P, preserved_P = token_losses(rows.predict([0, 1])), term.losses([2], 0.5)[1]
        wanted = (2 * edits_P.sum() / 5 + preserved_P.sum() / 2) / 3
    assert loss == pytest.approx(wanted.item(), rel=1e-4)


def test_the_setting_reaches_training(tiny_model):
    loaded, location = loaded_at(tiny_model, "2:down")
    settings = TrainingSettings(learning_rate=1e-3, batch_size=3, epochs=1, revisit=False)
    with open_rows(loaded, location, ROWS, MEMORY) as rows:
        job = EditJob(loaded, location, TrainingRows(rows.rows), settings)
        by_edit = breadth_first(job, rows)
        by_token = breadth_first(replace(job, training=replace(settings, loss_average="token")), rows)
        with torch.no_grad():
            wanted = token_losses(rows.predict([0, 1, 2])).sum() / 7
    assert by_token.losses[0] == pytest.approx(wanted.item(), rel=1e-4)
    assert by_edit.losses[0] != pytest.approx(wanted.item(), rel=1e-4)
