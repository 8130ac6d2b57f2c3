"""Signals: sketched products of gradients against true ones, margins by hand, and what ranks."""

from __future__ import annotations

import pytest
import torch

from factpatch.localization import signals
from factpatch.localization.places import candidate_locations
from factpatch.localization.signals import margins, rank_places, sketch_gradients
from factpatch.localization.trial_set import make_trial_set
from factpatch.models.encoding import encode_edit, padding_id
from factpatch.models.forward import Predictions, collate, predict_whole
from factpatch.models.loading import load_model, tensor_digests
from factpatch.models.locations import locate
from factpatch.settings.config import ModelSettings

TEXTS = [("The capital of France is", "Tokyo"), ("Who wrote it?", "Robert C. Newton"), ("東京 is in", "Paris")]


def true_products(loaded, location, rows):
    """Products of the rows' gradients, each computed alone."""
    flat = []
    located = [loaded.model.get_parameter(name).requires_grad_(True) for name in location.parameters]
    for row in rows:
        margin = margins(predict_whole(loaded.model, collate([row], padding_id(loaded.tokenizer))))
        flat.append(torch.cat([part.flatten() for part in torch.autograd.grad(margin.sum(), located)]))
    for parameter in located:
        parameter.requires_grad_(False)
    return torch.stack(flat) @ torch.stack(flat).T


def test_narrow_matrices_give_the_true_products(tiny_model, kind):
    loaded = load_model(ModelSettings(path=str(tiny_model(kind))))
    rows = [encode_edit(loaded.tokenizer, *text) for text in TEXTS]
    location = locate(loaded.model, "1:o")  # 32 inputs and outputs, fewer than a sketch has sides
    before = tensor_digests(loaded.model)
    gradients = sketch_gradients(loaded, location.parameters, rows)
    torch.testing.assert_close(gradients.kernel(location), true_products(loaded, location, rows), rtol=1e-3, atol=1e-4)
    assert tensor_digests(loaded.model) == before
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_wide_matrices_give_them_on_average(loaded, monkeypatch):
    monkeypatch.setattr(signals, "SKETCH_SIDE", 24)
    rows = [encode_edit(loaded.tokenizer, *text) for text in TEXTS]
    location = locate(loaded.model, "2:mlp")
    found, true = (
        sketch_gradients(loaded, location.parameters, rows).kernel(location),
        true_products(loaded, location, rows),
    )
    size = true.diag().sqrt()
    assert ((found - true) / size / size[:, None]).abs().max() < 0.2


def test_batches_change_nothing(loaded, monkeypatch):
    rows = [encode_edit(loaded.tokenizer, *text) for text in TEXTS]
    location = locate(loaded.model, "0:")
    whole = sketch_gradients(loaded, location.parameters, rows)
    monkeypatch.setattr(signals, "BATCH_ROWS", 1)
    alone = sketch_gradients(loaded, location.parameters, rows)
    torch.testing.assert_close(alone.kernel(location), whole.kernel(location), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(alone.margin_R, whole.margin_R, rtol=1e-4, atol=1e-4)


def test_the_margin_is_that_of_the_least_sure_token():
    logits_PV = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 5.0], [9.0, 0.0, 0.0], [0.0, 4.0, 1.0]])
    target_P, row_P = torch.tensor([0, 1, 2, 1]), torch.tensor([0, 0, 1, 1])
    real_P = torch.tensor([True, True, False, True])
    assert margins(Predictions(logits_PV, target_P, row_P, real_P, 2)).tolist() == [-3.0, 3.0]


def test_every_place_is_ranked_and_unknown_ones_stand_in_the_middle(loaded, edits, settings, with_search, monkeypatch):
    trial_set = make_trial_set(loaded, edits, settings, 8)
    locations = candidate_locations(loaded.model, with_search(modules=()).localization)
    assert len(locations) == 40
    ranked = rank_places(loaded, trial_set, locations)
    values = [one.signals["update"] for one in ranked]
    assert values == sorted(values)
    # as if every matrix were a stack of experts
    monkeypatch.setattr(signals, "is_projection_weight", lambda model, name: False)
    assert [one.signals["update"] for one in rank_places(loaded, trial_set, locations)] == [None] * 40


@pytest.mark.parametrize("count", [1, 8])
def test_a_few_edits_suffice(loaded, make_edits, settings, count):
    trial_set = make_trial_set(loaded, make_edits(count), settings, count)
    (one,) = rank_places(loaded, trial_set, [locate(loaded.model, "3:mlp")])
    assert one.signals["update"] > 0
