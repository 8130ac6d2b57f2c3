"""Depth-first fine-tuning, the old way: each edit to convergence, in order. The baseline to compare with."""

from __future__ import annotations

from factpatch.frozen_trunk import Rows
from factpatch.methods.learning_rate import with_step_size
from factpatch.methods.master_weights import masters_of
from factpatch.methods.optimizer import Progress, Stepper, TrainingResult
from factpatch.models.loading import LoadedModel
from factpatch.models.locations import Location
from factpatch.settings.config import TrainingSettings


def depth_first(
    loaded: LoadedModel,
    location: Location,
    rows: Rows,
    settings: TrainingSettings,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train on one edit after the other, each with a fresh Adam, until its loss is below the threshold.

    `settings.epochs` bounds the steps an edit gets. The model is left as found; the result holds the new values.
    """
    settings = with_step_size(settings, loaded.model, location)
    losses: list[float] = []
    steps = visits = 0
    with masters_of(loaded.model, location) as masters:
        for index in range(len(rows)):
            stepper = Stepper(rows, masters, settings.step_size, settings.micro_batch)
            for _ in range(settings.epochs):
                loss, _ = stepper.gradients([index])
                visits += 1
                if loss < settings.stop_loss:
                    break
                stepper.step()
                steps += 1
            losses.append(loss)
            if progress:
                progress(index + 1, len(rows), loss)
        values = loaded.stored.rounded(masters.values())
        return TrainingResult(values, tuple(losses), steps, visits, None, rows.engine)
