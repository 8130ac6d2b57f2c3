"""Depth-first training as a method: what it can do, and how much work it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from factpatch.methods.base import Abilities, EditJob, TrainingResult, TrainingRows
from factpatch.settings.config import TrainingSettings

if TYPE_CHECKING:  # what a method can do is asked without torch
    from factpatch.methods.workload import ModelShape, Workload


class DepthFirst:
    """Each edit trained to convergence before the next: the baseline to compare with."""

    name = "depth-first"
    settings_type = TrainingSettings
    abilities = Abilities(several_layers=True)

    def estimate(self, training: TrainingSettings, rows: TrainingRows, shape: ModelShape) -> Workload:
        """A step an edit in each epoch."""
        from factpatch.methods.workload import Workload, one_pass

        return Workload([one_pass([row], shape.layout) for row in rows.edits], len(rows.edits), training.epochs)

    def run(self, job: EditJob) -> TrainingResult:
        """Train one edit after the other."""
        from factpatch.methods.depth_first.training import depth_first

        with job.opened() as rows:
            return depth_first(job, rows)
