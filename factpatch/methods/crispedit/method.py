"""CrispEdit (arXiv 2602.15823) as a method: what it can do, and how much work it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from factpatch.methods.base import Abilities, EditJob, TrainingResult, TrainingRows
from factpatch.methods.crispedit.settings import CrispEditSettings

if TYPE_CHECKING:  # what a method can do is asked without torch
    from transformers import PreTrainedModel

    from factpatch.methods.workload import ModelShape, Workload
    from factpatch.models.locations import Location


class CrispEdit:
    """Breadth-first training whose gradients are turned away from directions in which general text has curvature."""

    name = "crispedit"
    settings_type = CrispEditSettings
    abilities = Abilities(several_layers=True)

    def refuse(self, model: PreTrainedModel, location: Location) -> None:
        """InputError for a location that is not made of plain projections."""
        from factpatch.methods.curvature_statistics import refuse_uncurved

        refuse_uncurved(model, location)

    def estimate(self, training: CrispEditSettings, rows: TrainingRows, shape: ModelShape) -> Workload:
        """Mini-batches of edits; what measures the curvature is not counted."""
        from factpatch.methods.breadth_first.estimate import workload

        return workload(training.as_training(), rows, shape)

    def run(self, job: EditJob) -> TrainingResult:
        """Train all edits at once, or chunk by chunk."""
        from factpatch.methods.crispedit.training import crispedit

        return crispedit(job)
