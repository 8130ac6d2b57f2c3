"""Breadth-first training: ordinary epochs over all edits in mini-batches (LocFT-BF, arXiv 2509.22072)."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from factpatch.frozen_trunk import Rows
from factpatch.methods.breadth_first.adaptive_kl_weight import RowKinds, likely, next_kl_weight, watched_shares
from factpatch.methods.breadth_first.checkpoint import load_checkpoint, remove_checkpoint, save_checkpoint, wait
from factpatch.methods.breadth_first.learning_rate_schedule import LearningRateSchedule
from factpatch.methods.breadth_first.preservation_schedule import (
    WARM_START_RATIO,
    PreservationSchedule,
    preserved_in_epoch,
)
from factpatch.methods.breadth_first.review_schedule import ReviewSchedule
from factpatch.methods.learning_rate import with_step_size
from factpatch.methods.master_weights import Masters, masters_of
from factpatch.methods.optimizer import Progress, Stepper, TrainingResult
from factpatch.methods.preservation import PreservationTerm
from factpatch.methods.projection import make_projection
from factpatch.models.loading import LoadedModel
from factpatch.models.locations import Location
from factpatch.settings.config import TrainingSettings

WRONG_ROWS_REPEATED, REPEATS = 16, 3  # in the last epochs of a warm-started run, and how often
PATIENCE_EPOCHS = 4  # epochs in which no fewer rows are unsure, after which a run ends where all edits are right
UNLEARNT_SHARE = 0.05  # share of further wordings, but of an earlier run's, that need not be learnt
CHECK_ROWS = 256  # rows of a forward pass that only checks


@dataclass(frozen=True)
class CheckpointPolicy:
    """Where a run saves its state, at most how often, and what the state belongs to; `resume` continues from it."""

    path: Path
    identity: dict[str, str]
    resume: bool
    seconds: float


@dataclass
class Position:
    """How far a run has come: its counters and losses, everything but tensors."""

    epoch: int = 0
    cursor: int = 0  # rows of this epoch's order that are done
    steps: int = 0
    visits: int = 0
    total: float = 0.0  # loss summed over the rows visited in this epoch
    weight: float = 1.0  # of preserved rows
    first: int = 0  # rows of edits due in the first epoch of a run that adds to an earlier one's values; 0 in others
    fewest: int = -1  # rows that were unsure when an epoch ended, at the least; -1 before the first
    since: int = 0  # epochs that have ended since then
    losses: list[float] = field(default_factory=list)

    def note(self, unsure: int) -> None:
        """Record how many rows are unsure when an epoch ends."""
        fewer = self.fewest < 0 or unsure < self.fewest
        self.fewest, self.since = (unsure, 0) if fewer else (self.fewest, self.since + 1)


@dataclass
class Run:
    """The state of a run, which a checkpoint holds; `order` are the rows of the present epoch."""

    stepper: Stepper
    reviews: ReviewSchedule
    preservation: PreservationSchedule
    generator: torch.Generator
    position: Position
    order: torch.Tensor


def breadth_first(
    loaded: LoadedModel,
    location: Location,
    rows: Rows,
    edits: int,
    settings: TrainingSettings,
    progress: Progress | None = None,
    checkpoint_policy: CheckpointPolicy | None = None,
    warm_start: Mapping[str, torch.Tensor] | None = None,
    augmented: int = 0,
) -> TrainingResult:
    """Train the located parameters with Adam in epochs of shuffled mini-batches.

    The first `edits` of the rows are edits, the next `augmented` are their further wordings; the rest are preserved,
    and an epoch visits `protect_ratio` of them, drawn anew, for each row of an edit that it visits. With `revisit`,
    rows that are learnt wait longer and longer. Training then ends when a check of all finds each target token at least
    as probable as `confidence` (but for a few wordings), or right where no more of them became so for long; without
    `revisit` it ends when an epoch's mean loss is below `stop_loss`.

    `warm_start` holds the values of an earlier patch: what they hold already is verified before the first epoch, and
    then visited in turn along with what is due; preserved rows come in turn too, those that moved at once. Such a run
    is gentler and shorter: batches are sized by what is due alone, steps are half as large and fall within the first
    epochs. Then it visits only what does not hold, most often what is not surely right, and ends when a check finds
    that all is. The model is left as found; the result holds the new values.
    """
    settings = with_step_size(settings, loaded.model, location)
    kinds = RowKinds.of(len(rows), edits, augmented, settings.adaptive)
    with masters_of(loaded.model, location, settings.rank, settings.seed) as masters:
        stepper = _stepper(loaded, masters, rows, kinds, settings)
        watched = likely(stepper, kinds.watched_preserved)
        run = Run(
            stepper,
            reviews=ReviewSchedule.start(kinds.taught, settings.confidence),
            preservation=PreservationSchedule.start(len(kinds.preserved), settings.seed),
            generator=torch.Generator().manual_seed(settings.seed),
            position=Position(weight=settings.keep_weight),
            order=torch.empty(0, dtype=torch.long),
        )
        if warm_start is not None:
            masters.start_from(warm_start)
        finished = _begin(run, kinds, settings, checkpoint_policy, warm_start is not None)
        position, due = run.position, time.monotonic() + (checkpoint_policy.seconds if checkpoint_policy else math.inf)
        while position.epoch < settings.epochs and not finished:
            if position.cursor == 0:
                run.order = _epoch_order(run, kinds, settings)
            while position.cursor < len(run.order):
                _step(run, kinds, settings)
                if checkpoint_policy and time.monotonic() >= due:
                    due = _save(run, checkpoint_policy)
            position.losses.append(position.total / len(run.order) if len(run.order) else position.losses[-1])
            position.note(len(run.reviews.unsure()))
            finished = is_finished(run, kinds, settings)
            if settings.adaptive:
                signals = watched_shares(stepper, kinds.watched_augmented, watched)
                position.weight = next_kl_weight(position.weight, settings.keep_weight, signals)
            position.epoch, position.cursor, position.total = position.epoch + 1, 0, 0.0
            if progress:
                progress(position.epoch, settings.epochs, position.losses[-1])
        unsure: tuple[int, ...] | None = None
        if settings.revisit:
            if not finished:
                review_all(stepper, kinds.taught, run.reviews, position.epoch)
            left = run.reviews.wrong() if position.first else run.reviews.unsure()
            unsure = tuple(index for index in left.tolist() if index < edits)
        values = loaded.stored.rounded(masters.values())
        return TrainingResult(values, tuple(position.losses), position.steps, position.visits, unsure, rows.engine)


def _stepper(loaded: LoadedModel, masters: Masters, rows: Rows, kinds: RowKinds, settings: TrainingSettings) -> Stepper:
    """The optimizer with the terms that the settings ask for; the model still has its base values."""
    preservation_term = projection = None
    if len(kinds.preserved):
        preservation_term = PreservationTerm(rows, kinds.preserved.start, settings.keep == "answers")
    if len(kinds.preserved) and settings.project != "none":
        projection = make_projection(
            loaded.model, masters.names, rows, kinds.preserved, settings.project, settings.project_share
        )
    return Stepper(rows, masters, settings.step_size, settings.micro_batch, preservation_term, projection)


def _begin(
    run: Run, kinds: RowKinds, settings: TrainingSettings, checkpoint_policy: CheckpointPolicy | None, warm_start: bool
) -> bool:
    """Continue from the checkpoint, or start anew, without what is left of another. Is there nothing to train?

    A `warm_start` verifies first what the values of an earlier patch hold.
    """
    if checkpoint_policy and checkpoint_policy.resume and checkpoint_policy.path.exists():
        _restore(run, checkpoint_policy)
        return False
    if checkpoint_policy:
        remove_checkpoint(checkpoint_policy.path)
    if not warm_start or not settings.revisit:
        return False
    review_all(run.stepper, kinds.taught, run.reviews, -1)
    run.reviews.line_up(run.generator)
    run.position.first = len(run.reviews.due(0))
    return _learnt(run.reviews.unsure(), run, kinds)


def _step(run: Run, kinds: RowKinds, settings: TrainingSettings) -> None:
    """One mini-batch: the next rows of the epoch's order."""
    position = run.position
    visited = min(len(run.order), position.first or len(run.order))
    batch = run.order[position.cursor : position.cursor + settings.rows_a_step(visited)]
    _set_step_size(run, settings)
    loss, hardest_B = run.stepper.gradients(batch.tolist(), position.weight)
    run.stepper.step()
    taught = batch < kinds.taught
    run.reviews.note(batch[taught], hardest_B[taught], position.epoch)
    run.preservation.note(batch[~taught] - kinds.preserved.start, hardest_B[~taught] / (position.weight or 1.0))
    position.total += loss * len(batch)
    position.cursor += len(batch)
    position.steps += 1
    position.visits += len(batch)


def review_all(stepper: Stepper, taught: int, reviews: ReviewSchedule, epoch: int) -> torch.Tensor:
    """A pass over all rows of edits without training; indices of those not learnt, which are due in the next epoch."""
    for start in range(0, taught, CHECK_ROWS):
        part = torch.arange(start, min(start + CHECK_ROWS, taught))
        reviews.note(part, stepper.look(part.tolist()), epoch)
    return reviews.unsure()


def is_finished(run: Run, kinds: RowKinds, settings: TrainingSettings) -> bool:
    """Is training done? A mean loss decides, or a check of all rows of edits once enough were found learnt. A
    warm-started run looks at all rows when its first epochs end, and after each of the last ones."""
    position, reviews = run.position, run.reviews
    if not settings.revisit:
        return position.losses[-1] < settings.stop_loss
    if _late(position, settings, position.epoch):
        return _right(run, kinds)
    if _late(position, settings, position.epoch + 1):
        review_all(run.stepper, kinds.taught, reviews, position.epoch)
        return _learnt(reviews.wrong(), run, kinds)
    if not _learnt(reviews.unsure(), run, kinds) and not _stuck(run, kinds):
        return False
    review_all(run.stepper, kinds.taught, reviews, position.epoch)
    return _learnt(reviews.unsure(), run, kinds) or _stuck(run, kinds)


def _stuck(run: Run, kinds: RowKinds) -> bool:
    """Is every edit right, and has none become sure for long? What is kept holds some back for good."""
    return run.position.since >= PATIENCE_EPOCHS and _learnt(run.reviews.wrong(), run, kinds)


def _right(run: Run, kinds: RowKinds) -> bool:
    """Is all surely right? Rows that were hardest at their last visit come first, and the look ends where enough are
    found wrong and a part holds no further one: the next epoch visits those, and the next look comes to the rest."""
    reviews = run.reviews
    for part in reviews.hardest(torch.arange(kinds.taught), kinds.taught).split(CHECK_ROWS):
        reviews.note(part, run.stepper.look(part.tolist()), run.position.epoch)
        wrong = reviews.wrong()
        if not _learnt(wrong, run, kinds) and not torch.isin(part, wrong).any():
            return False
    return _learnt(reviews.wrong(), run, kinds)


def _late(position: Position, settings: TrainingSettings, epoch: int) -> bool:
    """Have the first epochs of a warm-started run ended when that epoch begins?"""
    return position.first > 0 and epoch >= LearningRateSchedule.of(settings, warm_start=True).span


def _learnt(unsure: torch.Tensor, run: Run, kinds: RowKinds) -> bool:
    """Is every edit learnt, and of their further wordings all but a few?"""
    wordings = kinds.taught - kinds.edits
    new = min(wordings, run.position.first) if run.position.first else wordings
    return not (unsure < kinds.edits).any() and len(unsure) <= UNLEARNT_SHARE * new


def _epoch_order(run: Run, kinds: RowKinds, settings: TrainingSettings) -> torch.Tensor:
    """Rows of one epoch in random order: those due, and preserved ones.

    The first epochs of a warm-started run visit as many old rows as are due, and bring back preserved ones that moved,
    while steps are large enough; and what `protect_least` asks shrinks with what is due, as an epoch that visits a few
    rows more of what is new moves little.
    """
    due = due_rows(run, settings) if settings.revisit else torch.arange(kinds.taught)
    share = min(1.0, len(due) / run.position.first) if run.position.first else 1.0
    preserved = preserved_in_epoch(settings, len(due), len(kinds.preserved), share)
    if not run.position.first:
        turns, drawn = 0, torch.randperm(len(kinds.preserved), generator=run.generator)[:preserved]
    elif _late(run.position, settings, run.position.epoch):
        turns, drawn = 0, run.preservation.draw(preserved, returning=False)
    else:
        turns = len(due)
        drawn = run.preservation.draw(min(len(kinds.preserved), round(WARM_START_RATIO * preserved)), returning=True)
    visited = torch.cat([due, run.reviews.turns(turns), kinds.preserved.start + drawn])
    return visited[torch.randperm(len(visited), generator=run.generator)]


def due_rows(run: Run, settings: TrainingSettings) -> torch.Tensor:
    """Rows of edits that are not learnt, or whose wait is over.

    In a warm-started run, rows that hold come along only until there are as many as in its first epoch, so that its
    cost does not grow with all that was learnt before. In its last epochs what is not steady is due, and a few
    rows that are wrong several times.
    """
    position, reviews = run.position, run.reviews
    if not position.first:
        return reviews.due(position.epoch)
    if _late(position, settings, position.epoch):
        few = reviews.hardest(reviews.wrong(), WRONG_ROWS_REPEATED)
        return torch.cat([reviews.hardest(reviews.unsteady(), position.first), few.repeat(REPEATS)])
    return reviews.hardest(reviews.due(position.epoch), max(position.first, len(reviews.wrong())))


def _set_step_size(run: Run, settings: TrainingSettings) -> None:
    position = run.position
    schedule = LearningRateSchedule.of(settings, position.first > 0)
    for group in run.stepper.optimizer.param_groups:
        group["lr"] = schedule.at(position.epoch + position.cursor / len(run.order), position.steps)


def _save(run: Run, checkpoint_policy: CheckpointPolicy) -> float:
    """Write the checkpoint; when the next one is due."""
    start = time.monotonic()
    stepper, reviews, preservation = run.stepper, run.reviews, run.preservation
    tensors = {"order": run.order, "generator": run.generator.get_state(), "hardest": reviews.hardest_N}
    tensors |= {"due": reviews.due_N, "wait": reviews.wait_N, "turn": reviews.turn_N, "moved": preservation.moved_K}
    for number, master in enumerate(stepper.masters.tensors):
        tensors[f"{number}.master"] = master
        tensors |= {f"{number}.{name}": value for name, value in stepper.optimizer.state[master].items()}
    numbers: dict[str, Any] = {**vars(run.position), "micro": stepper.micro, "guarded": preservation.next}
    save_checkpoint(checkpoint_policy.path, tensors, numbers, checkpoint_policy.identity)
    end = time.monotonic()
    return end + wait(checkpoint_policy.seconds, end - start)


def _restore(run: Run, checkpoint_policy: CheckpointPolicy) -> None:
    """Put a run where the checkpoint says. Of two bounds of the micro-batch, that which it had come to and the one
    asked for now, the smaller holds."""
    tensors, numbers = load_checkpoint(checkpoint_policy.path, checkpoint_policy.identity)
    stepper, reviews = run.stepper, run.reviews
    run.generator.set_state(tensors["generator"])
    reviews.hardest_N, reviews.turn_N = tensors["hardest"], tensors["turn"]
    reviews.due_N, reviews.wait_N = tensors["due"], tensors["wait"]
    run.preservation.moved_K, run.preservation.next = tensors["moved"], numbers.pop("guarded")
    for number, master in enumerate(stepper.masters.tensors):
        master.copy_(tensors[f"{number}.master"])
        state = {name: tensors[f"{number}.{name}"] for name in ("step", "exp_avg", "exp_avg_sq")}
        stepper.optimizer.state[master] = {
            name: value if name == "step" else value.to(master.device) for name, value in state.items()
        }
    stepper.masters.write_back()
    stepper.micro = min((size for size in (numbers.pop("micro"), stepper.micro) if size), default=None)
    run.order, run.position = tensors["order"], Position(**numbers)
