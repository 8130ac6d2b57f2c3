"""AlphaEdit as a method: its settings, where it can write, and how much work it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass

from factpatch.methods.base import EditJob, TrainingResult, TrainingRows
from factpatch.methods.locate_then_edit.method import LocateThenEdit
from factpatch.methods.locate_then_edit.settings import ValueSettings, value_workload
from factpatch.settings.training import SECTION, Count, NotNegative

if TYPE_CHECKING:  # what a method can do is asked without torch
    from factpatch.methods.workload import ModelShape, Workload


@dataclass(frozen=True, config=SECTION)
class AlphaEditSettings(ValueSettings):
    """Those of the target values, and what holds the change to the null space."""

    nullspace_threshold: NotNegative = 1.0  # eigenvalue of general keys, as a share of the mean one, below which a
    # direction counts as unused
    l2: NotNegative = 10.0  # ridge
    chunk: Count = 100  # edits that are written together


class AlphaEdit(LocateThenEdit):
    """Fang et al., arXiv 2410.02355."""

    name = "alphaedit"
    settings_type = AlphaEditSettings

    def estimate(self, training: AlphaEditSettings, rows: TrainingRows, shape: ModelShape) -> Workload:
        """The target values' passes, and what a layer has unused and was asked so far."""
        return value_workload(training, rows, shape, matrices=3)

    def run(self, job: EditJob) -> TrainingResult:
        """Write the edits chunk by chunk."""
        from factpatch.methods.alphaedit.solve import AlphaEditSolver
        from factpatch.methods.locate_then_edit.spreading import locate_then_edit

        settings = job.training
        threshold, l2 = settings.nullspace_threshold, settings.l2
        return locate_then_edit(job, settings.chunk, lambda moments: AlphaEditSolver(moments, threshold, l2))
