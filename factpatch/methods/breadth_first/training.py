"""Breadth-first training: ordinary epochs over all edits in mini-batches (LocFT-BF, arXiv 2509.22072)."""

from __future__ import annotations

import math
import time
from typing import Protocol

import torch

from factpatch.frozen_trunk import Rows
from factpatch.methods.base import EditJob, TrainingResult
from factpatch.methods.breadth_first.fresh_start import FreshStart
from factpatch.methods.breadth_first.learning_rate_schedule import LearningRateSchedule
from factpatch.methods.breadth_first.run import RowRanges, Run
from factpatch.methods.breadth_first.warm_start import WarmStart
from factpatch.methods.checkpoint import CheckpointPolicy, remove_checkpoint
from factpatch.methods.curvature import Held
from factpatch.methods.learning_rate import with_step_size
from factpatch.methods.master_weights import Masters, masters_of
from factpatch.methods.optimizer import Stepper
from factpatch.methods.preservation import PreservationTerm
from factpatch.methods.whitening import Whitening, whitened_masters
from factpatch.settings.config import TrainingSettings


class TrainingPolicy(Protocol):
    """What a fresh run and a warm-started one do differently: the order of rows, the step size, and the end."""

    def schedule(self, settings: TrainingSettings) -> LearningRateSchedule:
        """The step sizes of the run."""
        ...

    def prepare(self, run: Run) -> bool:
        """Before the first epoch: is there nothing to train?"""
        ...

    def order(self, run: Run) -> torch.Tensor:
        """The rows of the next epoch in their order."""
        ...

    def batch_rows(self, run: Run) -> int:
        """Rows of a mini-batch in this epoch."""
        ...

    def finished(self, run: Run) -> bool:
        """After an epoch: is training done?"""
        ...

    def unsure(self, run: Run) -> torch.Tensor:
        """Rows of edits that count as not learnt when the run ends."""
        ...


def breadth_first(
    job: EditJob, rows: Rows, held: Held | None = None, whitening: Whitening | None = None
) -> TrainingResult:
    """Train the located parameters with Adam in epochs of shuffled mini-batches.

    An epoch visits edits and their augmented rows that are due, and for each of them `ratio` preserved rows.
    With `revisit`, rows that are learnt wait longer and longer. Training then ends when a check of all finds each
    target token at least as probable as `confidence` (but for a few augmented rows), or right where no more of them
    became so for long; without `revisit` it ends when an epoch's mean loss is below `stop_loss`. A `warm_start` goes
    its own way through the same loop. Gradients lose their part in the `held` directions; or training goes where
    general text is white (`factpatch.methods.whitening`). The model is left as found; the result holds the new values.
    """
    loaded, checkpoint = job.loaded, job.checkpoint
    settings = with_step_size(job.training, loaded.model, job.location)
    ranges = RowRanges.of(job.rows)
    policy: TrainingPolicy = FreshStart() if job.warm_start is None or not settings.revisit else WarmStart()
    masters_in = (
        whitened_masters(loaded.model, job.location, whitening)
        if whitening
        else masters_of(loaded.model, job.location, settings.rank, settings.seed)
    )
    with masters_in as masters:
        stepper = _stepper(masters, rows, ranges, settings, held)
        run = Run.start(stepper, ranges, settings)
        if job.warm_start is not None:
            masters.start_from(job.warm_start)
        finished = _begin(run, policy, checkpoint)
        position, due = run.position, time.monotonic() + (checkpoint.seconds if checkpoint else math.inf)
        while position.epoch < settings.epochs and not finished:
            if position.cursor == 0:
                run.order = policy.order(run)
            while position.cursor < len(run.order):
                _step(run, policy)
                if checkpoint and time.monotonic() >= due:
                    due = run.save(checkpoint)
            position.losses.append(position.total / len(run.order) if len(run.order) else position.losses[-1])
            position.note(len(run.reviews.unsure()))
            finished = policy.finished(run)
            position.epoch, position.cursor, position.total = position.epoch + 1, 0, 0.0
            if job.progress:
                job.progress(position.epoch, settings.epochs, position.losses[-1])
        unsure: tuple[int, ...] | None = None
        if settings.revisit:
            if not finished:
                run.review_all()
            unsure = tuple(index for index in policy.unsure(run).tolist() if index in ranges.edits)
        values = loaded.stored.rounded(masters.values())
        losses, factors = tuple(position.losses), masters.factors()
        return TrainingResult(values, losses, position.steps, position.visits, unsure, rows.engine, factors)


def _stepper(masters: Masters, rows: Rows, ranges: RowRanges, settings: TrainingSettings, held: Held | None) -> Stepper:
    """The optimizer with the term that holds preserved rows; the model still has its base values."""
    first, targets = ranges.preserved.start, settings.preservation.loss == "cross-entropy"
    term = PreservationTerm(rows, first, targets) if len(ranges.preserved) else None
    token_mean = settings.loss_average == "token"
    return Stepper(rows, masters, settings.step_size, settings.micro_batch, term, token_mean, held)


def _begin(run: Run, policy: TrainingPolicy, checkpoint: CheckpointPolicy | None) -> bool:
    """Continue from the checkpoint, or start anew, without what is left of another. Is there nothing to train?"""
    if checkpoint and checkpoint.resumes:
        run.restore(checkpoint)
        return False
    if checkpoint:
        remove_checkpoint(checkpoint.path)
    return policy.prepare(run)


def _step(run: Run, policy: TrainingPolicy) -> None:
    """One mini-batch: the next rows of the epoch's order."""
    position, taught, weight = run.position, len(run.rows.taught), run.settings.preservation.weight
    batch = run.order[position.cursor : position.cursor + policy.batch_rows(run)]
    epoch = position.epoch + position.cursor / len(run.order)
    for group in run.stepper.optimizer.param_groups:
        group["lr"] = policy.schedule(run.settings).at(epoch, position.steps)
    loss, hardest_B = run.stepper.gradients(batch.tolist(), weight)
    run.stepper.step()
    is_taught = batch < taught
    run.reviews.note(batch[is_taught], hardest_B[is_taught], position.epoch)
    preserved = batch[~is_taught] - run.rows.preserved.start
    run.preservation.note(preserved, hardest_B[~is_taught] / (weight or 1.0))
    position.total += loss * len(batch)
    position.cursor += len(batch)
    position.steps += 1
    position.visits += len(batch)
