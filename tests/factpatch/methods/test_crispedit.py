"""CrispEdit as a method: gradients that are turned away from what general text depends on."""

from dataclasses import replace

import pytest
import torch

from factpatch.editing import encode_edits, run_edit
from factpatch.edits.request import EditRequest
from factpatch.methods import curvature_statistics
from factpatch.methods.base import EditJob, TrainingRows
from factpatch.methods.crispedit import training
from factpatch.methods.crispedit.settings import CrispEditSettings
from factpatch.methods.crispedit.training import crispedit
from factpatch.methods.curvature import held_directions
from factpatch.models.loading import load_model, tensor_digests
from factpatch.models.locations import locate
from factpatch.settings.config import ModelSettings, Settings, TrainingSettings, TrunkSettings
from factpatch.settings.training import NO_AUGMENTATION, NO_PRESERVATION

EDITS = [
    EditRequest("1", "The capital of France is", "Tokyo"),
    EditRequest("2", "Who?", "Robert C. Newton"),
    EditRequest("3", "東京 is in", "Brazil"),
]
PLAIN = TrainingSettings(
    learning_rate=1e-2,
    schedule="constant",
    batch_size=2,
    epochs=40,
    revisit=False,
    stop_loss=0.3,
    preservation=NO_PRESERVATION,
    augmentation=NO_AUGMENTATION,
)


@pytest.fixture(autouse=True)
def _few_texts(monkeypatch):
    monkeypatch.setattr(curvature_statistics, "TEXTS", 16)


def edit(loaded, place, **changes):
    """A run with these settings of training, in memory."""
    settings = Settings(training=replace(PLAIN, **changes), trunk=TrunkSettings(folder=None))
    return run_edit(loaded, locate(loaded.model, place), EDITS, settings)


def test_edits_are_learnt_and_the_model_is_left_as_found(tiny_model, kind):
    loaded = load_model(ModelSettings(path=str(tiny_model(kind))))
    before = tensor_digests(loaded.model)
    result = edit(loaded, "1-2:down", method="crispedit")
    assert result.losses[-1] < result.losses[0] / 2
    assert set(result.values) == set(locate(loaded.model, "1-2:down").parameters)
    assert tensor_digests(loaded.model) == before
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_held_directions_move_less(tiny_model):
    """They do not stay wholly where they are, as Adam scales each number of a projected gradient."""
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    location = locate(loaded.model, "2:down")
    (name,) = location.parameters
    guarded = edit(loaded, "2:down", epochs=4, method="crispedit").values[name]
    free = edit(loaded, "2:down", epochs=4, method="crispedit", options={"share": 0.0}).values[name]
    factors = curvature_statistics.curvature_of_own_text(loaded, location, None)[name]
    held, start = held_directions(factors, 0.9), loaded.model.get_parameter(name).detach()

    def moved(value):
        return ((held.rows_RR.T @ (value - start) @ held.columns_CC) * held.held_RC).norm()

    assert moved(guarded) < 0.6 * moved(free)


@pytest.mark.parametrize("method", ["crispedit", "breadth-first"])
def test_micro_batches_change_nothing(tiny_model, method):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    changes = {"method": method, "epochs": 3}
    whole, parts = (edit(loaded, "1-2:down", micro_batch=micro, **changes) for micro in (None, 1))
    torch.testing.assert_close(torch.tensor(whole.losses), torch.tensor(parts.losses), rtol=1e-3, atol=1e-4)
    for name, value in whole.values.items():
        torch.testing.assert_close(value, parts.values[name], rtol=0, atol=2e-3)


def test_chunks_are_written_one_after_the_other_and_join_the_curvature(tiny_model, monkeypatch):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    before = tensor_digests(loaded.model)
    location = locate(loaded.model, "1-2:down")
    shares = []

    def noted(factors, share):
        shares.append((factors.tokens, share))
        return held_directions(factors, share)

    monkeypatch.setattr(training, "held_directions", noted)
    rows = TrainingRows(tuple(encode_edits(loaded, EDITS, chat_template=False)))
    settings = CrispEditSettings(learning_rate=1e-2, epochs=20, chunk=2)
    result = crispedit(EditJob(loaded, location, rows, settings, trunk=TrunkSettings(folder=None)))
    assert tensor_digests(loaded.model) == before
    own = shares[0][0]
    written = sum(len(row.ids) - row.prompt_length for row in rows.edits[:2])
    assert shares == [(own, 0.9)] * 2 + [(own + written, 0.9)] * 2
    assert result.visits > result.steps >= len(result.losses)
    assert set(result.values) == set(location.parameters)
