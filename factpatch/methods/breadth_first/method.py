"""Breadth-first training as a method: what it can do, and how much work it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from factpatch.methods.base import Abilities, EditJob, TrainingResult, TrainingRows
from factpatch.settings.config import TrainingSettings

if TYPE_CHECKING:  # what a method can do is asked without torch
    from factpatch.methods.workload import ModelShape, Workload


class BreadthFirst:
    """Epochs over all edits in mini-batches (LocFT-BF), of the matrices or of low-rank factors."""

    name = "breadth-first"
    settings_type = TrainingSettings
    abilities = Abilities(warm_start=True, resume=True, several_layers=True, augmented=True, preserved=True)

    def estimate(self, training: TrainingSettings, rows: TrainingRows, shape: ModelShape) -> Workload:
        """Mini-batches of edits, augmented and preserved rows, and the checks of what is learnt."""
        from factpatch.methods.breadth_first.estimate import workload

        return workload(training, rows, shape)

    def run(self, job: EditJob) -> TrainingResult:
        """Train in epochs over all rows."""
        from factpatch.methods.breadth_first.training import breadth_first
        from factpatch.methods.whitening import whitening_at

        whitening = whitening_at(job.loaded, job.location, job.training.damping, job.trunk)
        with job.opened() as rows:
            return breadth_first(job, rows, whitening=whitening)
