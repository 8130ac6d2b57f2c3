"""All guards at once: one seed one result, trunk or not, killed or not; and the rules that the weight follows."""

from dataclasses import replace
from statistics import fmean

import pytest
import torch

from factpatch.methods.base import EditJob, TrainingRows
from factpatch.methods.breadth_first.preservation_schedule import preserved_in_epoch
from factpatch.methods.breadth_first.run import RowRanges
from factpatch.methods.breadth_first.training import breadth_first
from factpatch.methods.checkpoint import CheckpointPolicy
from factpatch.methods.preservation import LIKELIEST, divergence
from factpatch.models.encoding import Encoded, padding_id
from factpatch.models.forward import collate, predict_whole, token_losses
from factpatch.models.loading import load_model, preserved, tensor_digests, write_values
from factpatch.models.locations import locate
from factpatch.settings.config import ModelSettings, TrainingSettings, TrunkSettings
from factpatch.settings.training import PreservationSettings

EDITS, WORDINGS = 5, 20
ROWS = [
    *(Encoded((5 + number, 6, 7 + number, 0), 2) for number in range(EDITS)),
    *(Encoded((5 + number % EDITS, 60 + number, 6, 7 + number % EDITS, 0), 3) for number in range(WORDINGS)),
    *(Encoded((100 + number, 9, 20 + number, 0), 2) for number in range(40)),
]
SETTINGS = TrainingSettings(
    learning_rate=5e-3,
    batch_size=8,
    epochs=5,
    preservation=PreservationSettings(ratio=1.0),
)
MEMORY = TrunkSettings(folder=None)


class Interrupted(Exception):
    pass


def train(tiny_model, place, settings=SETTINGS, trunk=MEMORY, checkpoint_policy=None, stop=None, start=None):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    location, before = locate(loaded.model, place), tensor_digests(loaded.model)

    def report(epoch, epochs, loss):
        if epoch == stop:
            raise Interrupted

    kinds = TrainingRows(tuple(ROWS[:EDITS]), tuple(ROWS[EDITS : EDITS + WORDINGS]), tuple(ROWS[EDITS + WORDINGS :]))
    job = EditJob(loaded, location, kinds, settings, (), trunk, report, None, checkpoint_policy, start)
    try:
        with job.opened() as rows:
            return breadth_first(job, rows)
    finally:
        assert tensor_digests(loaded.model) == before


def identical(one, other):
    return one.losses == other.losses and all(
        torch.equal(value, other.values[name]) for name, value in one.values.items()
    )


@pytest.mark.parametrize("place", ["3:mlp", "1:down"])
@pytest.mark.parametrize("options", [{}, {"rank": 2}])
def test_a_killed_run_continues_to_the_same_bits(tiny_model, tmp_path, place, options):
    settings = replace(SETTINGS, **options)
    whole = train(tiny_model, place, settings)
    assert identical(whole, train(tiny_model, place, settings))
    checkpoint_policy = CheckpointPolicy(tmp_path / "checkpoint.safetensors", {"run": "this"}, resume=True, seconds=0.0)
    with pytest.raises(Interrupted):
        train(tiny_model, place, settings, checkpoint_policy=checkpoint_policy, stop=3)
    assert checkpoint_policy.path.exists()
    assert identical(whole, train(tiny_model, place, settings, checkpoint_policy=checkpoint_policy))


def test_the_trunk_changes_no_result_beyond_rounding(tiny_model):
    kept, whole = (train(tiny_model, "2:mlp", trunk=replace(MEMORY, keep=keep)) for keep in (True, False))
    assert (kept.engine, whole.engine) == ("padding-free", "whole")
    torch.testing.assert_close(torch.tensor(kept.losses), torch.tensor(whole.losses), rtol=1e-3, atol=1e-4)
    for name, value in kept.values.items():
        torch.testing.assert_close(value, whole.values[name], rtol=0, atol=2e-3)


def test_a_run_that_begins_with_an_earlier_patch_keeps_what_the_base_model_says(tiny_model):
    """One pass over all rows with steps of nothing: the loss is that of the patched model, and what is kept is measured
    against the base model, not the patch."""
    first = train(tiny_model, "3:mlp")
    all_rows = PreservationSettings(ratio=10.0)
    still = replace(SETTINGS, learning_rate=1e-9, batch_size=len(ROWS), epochs=1, revisit=False, preservation=all_rows)
    again = train(tiny_model, "3:mlp", still, start=first.values)
    for name, value in first.values.items():
        torch.testing.assert_close(again.values[name], value, rtol=0, atol=1e-8)

    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    batch = collate(ROWS, padding_id(loaded.tokenizer))
    with preserved(loaded.model, first.values), torch.no_grad():
        base_PK, tokens_PK = predict_whole(loaded.model, batch).logits_PV.log_softmax(-1).topk(LIKELIEST)
        write_values(loaded.model, first.values)
        patched = predict_whole(loaded.model, batch)
        now_PK = patched.logits_PV.log_softmax(-1).gather(1, tokens_PK)
        losses_P, moved_P = token_losses(patched), divergence(now_PK, base_PK)
    rows = [patched.real_P & (patched.row_P == row) for row in range(len(ROWS))]
    taught = [losses_P[row_P].mean().item() for row_P in rows[: EDITS + WORDINGS]]
    kept = [moved_P[row_P].mean().item() for row_P in rows[EDITS + WORDINGS :]]
    assert fmean(kept) > 0.005
    assert again.losses == pytest.approx([fmean([*taught, *(all_rows.weight * loss for loss in kept)])], rel=1e-4)


def test_rows_stand_kind_by_kind():
    rows = TrainingRows(*(tuple(ROWS[:1] * count) for count in (EDITS, WORDINGS, 40)))
    ranges = RowRanges.of(rows)
    assert ranges == RowRanges(range(5), range(5, 25), range(25, 65))
    assert ranges.taught == range(25)


def test_few_edits_still_visit_a_least_number_of_kept_rows():
    settings = PreservationSettings(ratio=3.0, least=100)
    assert [preserved_in_epoch(settings, due, 500) for due in (0, 1, 50, 400)] == [0, 100, 150, 500]
    assert [preserved_in_epoch(settings, due, 500, 0.2) for due in (0, 1, 10)] == [0, 20, 30]
