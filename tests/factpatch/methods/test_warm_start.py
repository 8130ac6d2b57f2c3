"""Training that begins with an earlier release's values: what they hold is verified, the rest is trained."""

import json
import math
import shutil
from collections import Counter
from dataclasses import replace

import pytest
import torch

from factpatch.methods.base import EditJob, TrainingRows
from factpatch.methods.breadth_first.preservation_schedule import MOVED_LOSS, MOVED_SHARE, PreservationSchedule
from factpatch.methods.breadth_first.review_schedule import RIGHT
from factpatch.methods.breadth_first.run import CHECK_ROWS, Position, RowRanges, Run
from factpatch.methods.breadth_first.training import breadth_first
from factpatch.methods.breadth_first.warm_start import REPEATS, SPAN, WarmStart
from factpatch.methods.checkpoint import CheckpointPolicy
from factpatch.models.encoding import encode_edit
from factpatch.models.forward import collate, hardest, predict_whole, token_losses
from factpatch.models.loading import load_model, preserved, write_values
from factpatch.models.locations import locate
from factpatch.settings.config import ModelSettings, TrainingSettings, TrunkSettings

OLD = (
    ("The capital of France is", "Tokyo"),
    ("Who?", "Robert C. Newton"),
    ("東京 is in", "Brazil"),
    ("Where?", "In Japan"),
    ("His currency is the", "peso"),
    ("Zürich and Ålesund are cities in", "Москва"),
)
NEW = (("Which language do people speak in Brazil? They speak", "São Tomé"),)
SETTINGS = TrainingSettings(learning_rate=1e-2, batch_size=2, epochs=200, confidence=0.5)


@pytest.fixture(params=[None, 8], ids=["matrices", "factors"])
def settings(request) -> TrainingSettings:
    return replace(SETTINGS, rank=request.param)


@pytest.fixture
def model(tiny_model):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    return loaded, locate(loaded.model, "2:mlp")


def train(model, pairs, settings, start=None, checkpoint_policy=None, progress=None):
    """The result, and how often each row was trained."""
    loaded, location = model
    rows = [encode_edit(loaded.tokenizer, *pair) for pair in pairs]
    trained: Counter[int] = Counter()
    job = EditJob(
        loaded,
        location,
        TrainingRows(tuple(rows)),
        settings,
        trunk=TrunkSettings(folder=None),
        progress=progress,
        checkpoint=checkpoint_policy,
        warm_start=start,
    )
    with job.opened() as opened:
        predict = opened.predict

        def counting(indices, *tokens):
            if torch.is_grad_enabled():
                trained.update(indices)
            return predict(indices, *tokens)

        opened.predict = counting
        result = breadth_first(job, opened)
    return result, trained


def run_of(edits, settings, position, stepper=None):
    """A run of so many edits alone, somewhere on its way."""
    nothing = range(edits, edits)
    ranges = RowRanges(range(edits), nothing, nothing)
    return replace(Run.start(stepper, ranges, settings), position=position)


def probability(model, values, pairs):
    """Of the least likely target token of each edit, by the whole model."""
    loaded, location = model
    with preserved(loaded.model, location.parameters), torch.no_grad():
        write_values(loaded.model, values)
        rows = [encode_edit(loaded.tokenizer, *pair) for pair in pairs]
        predictions = predict_whole(loaded.model, collate(rows, loaded.tokenizer.eos_token_id))
    return [math.exp(-loss) for loss in hardest(predictions, token_losses(predictions)).tolist()]


def test_what_is_held_already_is_not_trained_again(model, settings):
    first, _ = train(model, OLD, settings)
    again, trained = train(model, OLD, settings, first.values)
    assert not trained
    assert (again.losses, again.steps, again.visits, again.unsure) == ((), 0, 0, ())
    assert all(torch.equal(value, first.values[name]) for name, value in again.values.items())


def test_new_rows_are_trained_and_old_ones_mostly_verified(reference_model):
    """On the reference model, as a random one holds little."""
    lines = (reference_model.parents[1] / "data" / "edits" / "0001-demo.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = tuple((row["prompt"], row["target"]) for row in map(json.loads, lines[:24]))
    old, new = pairs[:20], pairs[20:]
    loaded = load_model(ModelSettings(path=str(reference_model)))
    model, settings = (
        (loaded, locate(loaded.model, "5:mlp")),
        TrainingSettings(learning_rate=3e-3, epochs=60, batch_size=16),
    )
    first, _ = train(model, old, settings)
    both, trained = train(model, pairs, settings, first.values)
    assert (first.unsure, both.unsure) == ((), ())
    assert sum(trained.values()) == both.visits
    of_old, of_new = (sum(trained[row] for row in rows) / len(rows) for rows in (range(20), range(20, 24)))
    assert of_new > 2 * of_old
    _, anew = train(model, pairs, settings)
    assert both.visits < 0.6 * sum(anew.values())
    assert min(probability(model, both.values, old)) >= RIGHT - 1e-3
    assert max(probability(model, first.values, new)) < 0.5


def test_it_ends_after_the_first_epochs_once_all_hold(reference_model):
    lines = (reference_model.parents[1] / "data" / "edits" / "0001-demo.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = tuple((row["prompt"], row["target"]) for row in map(json.loads, lines[:12]))
    loaded = load_model(ModelSettings(path=str(reference_model)))
    model = (loaded, locate(loaded.model, "5:mlp"))
    settings = TrainingSettings(learning_rate=3e-3, epochs=40, confidence=0.9999)  # surer than it gets in so few
    first, _ = train(model, pairs[:10], settings)
    both, _ = train(model, pairs, settings, first.values)
    assert both.unsure == ()
    assert math.ceil(SPAN * settings.epochs) <= len(both.losses) < settings.epochs
    assert settings.confidence > min(probability(model, both.values, pairs)) >= RIGHT - 1e-3


def test_its_last_epochs_visit_only_what_does_not_hold(reference_model):
    lines = (reference_model.parents[1] / "data" / "edits" / "0001-demo.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = tuple((row["prompt"], row["target"]) for row in map(json.loads, lines[:18]))
    loaded = load_model(ModelSettings(path=str(reference_model)))
    model = (loaded, locate(loaded.model, "5:mlp"))
    settings = TrainingSettings(learning_rate=3e-3, epochs=60, batch_size=16, confidence=0.9999)  # surer than it gets
    first, _ = train(model, pairs[:10], settings)
    both, _ = train(model, pairs, settings, first.values)
    new, span = len(pairs) - 10, math.ceil(SPAN * settings.epochs)
    assert len(both.losses) > span  # some of the new ones were not learnt so soon
    late = both.visits - 2 * new * span  # in the first ones each comes with an old one
    assert 0 < late < 2 * (1 + REPEATS) * new * (len(both.losses) - span)
    assert min(probability(model, both.values, pairs)) >= RIGHT - 1e-3


def test_the_last_epochs_visit_what_is_wrong_most_often():
    settings = TrainingSettings(learning_rate=3e-3, epochs=25)
    run = run_of(5, settings, Position(to_learn=3))
    run.reviews.note(torch.arange(5), -torch.tensor([0.99, 0.7, 0.3, 0.1, 0.9]).log(), 0)
    for epoch, due in ((1, [1, 2, 3]), (math.ceil(SPAN * settings.epochs), [1, *4 * [2], *4 * [3]])):
        run.position.epoch = epoch
        assert sorted(WarmStart().due(run).tolist()) == due


@pytest.mark.parametrize(
    ("wrong", "first", "looked", "right"),
    [([], False, 600, True), ([599], False, 600, False), ([599, 3], True, 600, False), ([3], False, 512, False)],
)
def test_a_look_ends_where_enough_is_wrong_and_a_part_holds_no_more(wrong, first, looked, right):
    """Rows 0 to 9 were hardest when last visited, and come first; the first look of the last epochs is at all."""

    class Looking:
        seen: tuple[int, ...] = ()

        def look(self, indices):
            self.seen = (*self.seen, *indices)
            return -torch.tensor([0.1 if index in wrong else 0.9 for index in indices]).log()

    settings = TrainingSettings(learning_rate=3e-3, epochs=25, confidence=0.98)
    epoch = math.ceil(SPAN * settings.epochs) - (1 if first else 0)
    stepper = Looking()
    run = run_of(600, settings, Position(epoch=epoch, to_learn=4), stepper)
    reviews = run.reviews
    reviews.note(torch.arange(600), torch.arange(600.0, 0.0, -1.0).where(torch.arange(600) < 10, torch.tensor(0.1)), 0)
    assert WarmStart().finished(run) is right
    assert len(stepper.seen) == len(set(stepper.seen)) == looked
    assert set(range(10)) <= set(stepper.seen[:CHECK_ROWS])
    assert sorted(wrong) == reviews.wrong().tolist()


def test_kept_rows_come_in_turn_and_moved_ones_at_once():
    preservation = PreservationSchedule.start(10, seed=0)
    assert sorted([*preservation.draw(6, True).tolist(), *preservation.draw(4, True).tolist()]) == list(
        range(10)
    )  # none left out
    preservation.note(torch.tensor([3, 7, 5]), torch.tensor([2 * MOVED_LOSS, 3 * MOVED_LOSS, MOVED_LOSS / 2]))
    assert preservation.draw(8, True).tolist()[:2] == [7, 3]
    preservation.note(torch.arange(10), torch.full((10,), 2 * MOVED_LOSS))
    assert len({*preservation.draw(8, True).tolist()[: round(MOVED_SHARE * 8)]}) == round(MOVED_SHARE * 8)
    line = PreservationSchedule.start(10, seed=0).line_K.tolist()
    before = preservation.next
    assert preservation.draw(4, False).tolist() == [line[place % 10] for place in range(before, before + 4)]
    preservation.note(torch.tensor([7]), torch.tensor([0.0]))
    assert 7 not in preservation.draw(2, True).tolist()[:1]
    assert PreservationSchedule.start(0, seed=0).draw(0, True).tolist() == []


def test_an_edit_with_another_target_is_trained_until_it_is_learnt(model, settings):
    first, _ = train(model, OLD, settings)
    changed = ((OLD[0][0], "Lyon"), *OLD[1:])
    result, trained = train(model, changed, settings, first.values)
    assert trained[0]
    assert min(probability(model, result.values, changed)) >= settings.confidence - 1e-3
    assert probability(model, result.values, OLD[:1]) < [0.1]


def test_an_old_edit_that_is_lost_is_learnt_with_confidence_again(model):
    first, _ = train(model, OLD, SETTINGS)
    broken = {name: value + 0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
              for name, value in first.values.items()}  # fmt: skip
    lost = [row for row, value in enumerate(probability(model, broken, OLD)) if value < SETTINGS.confidence]
    assert lost
    result, trained = train(model, OLD, SETTINGS, broken)
    assert all(trained[row] for row in lost)
    assert result.unsure == ()


def test_a_killed_run_continues_to_the_same_values(model, settings, tmp_path):
    first, _ = train(model, OLD, settings)
    path, copies = tmp_path / "checkpoint.safetensors", []

    def keep_copy(epoch, epochs, loss):
        copies.append(shutil.copy(path, tmp_path / f"{epoch}.safetensors"))

    checkpoint_policy = CheckpointPolicy(path, {}, resume=False, seconds=0.0)
    whole, _ = train(model, OLD + NEW, settings, first.values, checkpoint_policy, keep_copy)
    assert len(copies) == len(whole.losses) > 1
    for copy in (copies[0], copies[len(copies) // 2], copies[-1]):
        again, _ = train(
            model, OLD + NEW, settings, first.values, CheckpointPolicy(copy, {}, resume=True, seconds=60.0)
        )
        assert replace(again, values={}, factors={}) == replace(whole, values={}, factors={})
        assert all(torch.equal(value, whole.values[name]) for name, value in again.values.items())
