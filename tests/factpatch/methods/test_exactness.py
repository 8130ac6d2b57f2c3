"""The engine computes what a plain loop computes; batches, caches and padding have no say; one seed, one result."""

from dataclasses import replace

import pytest
import torch

from factpatch.frozen_trunk import open_rows
from factpatch.methods.base import EditJob, TrainingRows
from factpatch.methods.breadth_first.training import breadth_first
from factpatch.models.encoding import encode_edit
from factpatch.models.loading import load_model
from factpatch.models.locations import locate
from factpatch.settings.config import ModelSettings, TrainingSettings, TrunkSettings
from tests.factpatch.methods.plain import plain_loop

PAIRS = (
    ("The capital of France is", "Tokyo"),
    ("Who?", "Robert C. Newton"),
    ("東京 is in", "Brazil"),
    ("Which language do people speak in the far-away city of St. Louis? They speak", "São Tomé"),
    ("His currency is the", "peso"),
    ("Zürich and Ålesund are cities in", "Москва"),
    ("Where?", "In Japan"),
)
SETTINGS = TrainingSettings(
    learning_rate=5e-4, schedule="constant", batch_size=3, epochs=4, revisit=False, stop_loss=0.0, seed=5
)
MEMORY = TrunkSettings(folder=None)
PARTS = ("down", "up", "mlp", "attention", "block")
# Rounding is all that tells two orders of the same sums apart; Adam's first steps magnify it where a gradient is nearly
# zero, to a share of the step size.
LOSS = {"rtol": 2e-5, "atol": 2e-5}
WEIGHTS = {"rtol": 0, "atol": 5e-5}


def load(tiny_model, kind):
    loaded = load_model(ModelSettings(path=str(tiny_model(kind))))
    return loaded, [encode_edit(loaded.tokenizer, *pair) for pair in PAIRS]


def train(loaded, location, rows, training=SETTINGS, trunk=MEMORY):
    with open_rows(loaded, location, rows, trunk) as opened:
        return breadth_first(EditJob(loaded, location, TrainingRows(opened.rows), training), opened)


def assert_same(one, other):
    torch.testing.assert_close(torch.tensor(one.losses), torch.tensor(other.losses), **LOSS)
    for name, value in one.values.items():
        torch.testing.assert_close(value, other.values[name], **WEIGHTS)


def assert_identical(one, other):
    assert one.losses == other.losses
    assert all(torch.equal(value, other.values[name]) for name, value in one.values.items())


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_the_engine_follows_the_plain_loop(tiny_model, kind, layer):
    loaded, rows = load(tiny_model, kind)
    for part in PARTS:
        location = locate(loaded.model, f"{layer}:{part}")
        result = train(loaded, location, rows)
        assert result.engine == ("packed" if layer == 3 and part in ("down", "up", "mlp") else "padding-free")
        losses, values = plain_loop(
            loaded.model, [(row.ids, row.prompt_length) for row in rows], location.parameters, 5e-4, 3, 4, seed=5
        )
        torch.testing.assert_close(torch.tensor(result.losses), torch.tensor(losses), **LOSS)
        moved = 0.0
        for name, value in values.items():
            torch.testing.assert_close(result.values[name], value, **WEIGHTS)
            moved = max(moved, (value - loaded.model.get_parameter(name)).abs().max().item())
        assert moved > 20 * WEIGHTS["atol"]


@pytest.mark.parametrize("place", ["1:mlp", "3:down", "2:attention"])
def test_micro_batches_and_the_place_of_the_cache_change_nothing(tiny_model, tmp_path, kind, place):
    loaded, rows = load(tiny_model, kind)
    location = locate(loaded.model, place)
    wanted = train(loaded, location, rows)
    for micro_batch in (1, 2):
        assert_same(wanted, train(loaded, location, rows, replace(SETTINGS, micro_batch=micro_batch)))
    whole = train(loaded, location, rows, trunk=TrunkSettings(keep=False))
    assert (whole.engine, wanted.engine != "whole") == ("whole", True)
    assert_same(wanted, whole)
    for trunk in (
        TrunkSettings(folder=str(tmp_path / "read")),
        TrunkSettings(folder=str(tmp_path / "mapped"), memory_gb=0.0),
    ):
        assert_identical(wanted, train(loaded, location, rows, trunk=trunk))


@pytest.mark.parametrize("place", ["1:mlp", "3:down"])
def test_a_cold_a_warm_and_a_shared_cache_give_the_same_bits(tiny_model, tmp_path, kind, place):
    """The shared one holds three of the edits from a run with others, in other batches."""
    loaded, rows = load(tiny_model, kind)
    location = locate(loaded.model, place)
    settings = replace(SETTINGS, revisit=True, schedule="decay")
    own = TrunkSettings(folder=str(tmp_path / "own"))
    cold = train(loaded, location, rows, settings, own)
    assert_identical(cold, train(loaded, location, rows, settings, own))
    shared = TrunkSettings(folder=str(tmp_path / "shared"))
    others = [encode_edit(loaded.tokenizer, prompt, "Nobody knows") for prompt, _ in PAIRS]
    train(loaded, location, [*others[2:], *rows[4:], *others[:2], rows[1]], settings, shared)
    assert_identical(cold, train(loaded, location, rows, settings, shared))


def test_long_rows_beside_short_ones_change_nothing(tiny_model, kind):
    """Losses and gradients of a row do not depend on how far its neighbours make it be padded."""
    loaded, rows = load(tiny_model, kind)
    location = locate(loaded.model, "1:mlp")
    settings = replace(SETTINGS, batch_size=1, epochs=1)
    with open_rows(loaded, location, rows, MEMORY) as opened:
        together = opened.predict(range(len(rows)))
        for index in range(len(rows)):
            alone = opened.predict([index])
            mine = together.real_P & (together.row_P == index)
            torch.testing.assert_close(alone.logits_PV[alone.real_P], together.logits_PV[mine], rtol=1e-4, atol=1e-4)
    assert_same(
        train(loaded, location, rows[:1], settings),
        train(loaded, location, rows[:1] * 2, replace(settings, batch_size=2)),
    )
