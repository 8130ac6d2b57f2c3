"""Depth-first fine-tuning, the old way: each edit to convergence, in order. The baseline to compare with."""

from __future__ import annotations

from factpatch.frozen_trunk import Rows
from factpatch.methods.base import EditJob, TrainingResult
from factpatch.methods.learning_rate import with_step_size
from factpatch.methods.master_weights import masters_of
from factpatch.methods.optimizer import Stepper


def depth_first(job: EditJob, rows: Rows) -> TrainingResult:
    """Train on one edit after the other, each with a fresh Adam, until its loss is below the threshold.

    `epochs` bounds the steps an edit gets. The model is left as found; the result holds the new values.
    """
    loaded, edits = job.loaded, range(len(job.rows.edits))
    settings = with_step_size(job.training, loaded.model, job.location)
    losses: list[float] = []
    steps = visits = 0
    with masters_of(loaded.model, job.location) as masters:
        for index in edits:
            stepper = Stepper(rows, masters, settings.step_size, settings.micro_batch)
            for _ in range(settings.epochs):
                loss, _ = stepper.gradients([index])
                visits += 1
                if loss < settings.stop_loss:
                    break
                stepper.step()
                steps += 1
            losses.append(loss)
            if job.progress:
                job.progress(index + 1, len(edits), loss)
        values = loaded.stored.rounded(masters.values())
        return TrainingResult(values, tuple(losses), steps, visits, None, rows.engine)
