"""MEMIT as a method: its settings, where it can write, and how much work it is."""

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
class MemitSettings(ValueSettings):
    """Those of the target values, and the authors' weight of general keys."""

    mom2_update_weight: NotNegative = 15000.0  # of the keys' second moment beside the edits' own keys
    chunk: Count | None = None  # edits that are written together; null: all


class Memit(LocateThenEdit):
    """Meng et al., arXiv 2210.07229."""

    name = "memit"
    settings_type = MemitSettings

    def estimate(self, training: MemitSettings, rows: TrainingRows, shape: ModelShape) -> Workload:
        """The target values' passes, and a second moment for each layer."""
        return value_workload(training, rows, shape, matrices=1)

    def run(self, job: EditJob) -> TrainingResult:
        """Write all edits at once, or chunk by chunk."""
        from factpatch.methods.locate_then_edit.spreading import locate_then_edit
        from factpatch.methods.memit.solve import MemitSolver

        settings = job.training
        return locate_then_edit(job, settings.chunk, lambda moments: MemitSolver(moments, settings.mom2_update_weight))
