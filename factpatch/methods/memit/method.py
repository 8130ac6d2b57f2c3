"""MEMIT as a method: its settings, where it can write, and how much work it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass

from factpatch.methods.base import Abilities, EditJob, TrainingResult, TrainingRows
from factpatch.methods.locate_then_edit.settings import ValueSettings, value_workload
from factpatch.settings.training import SECTION, Count, NotNegative

if TYPE_CHECKING:  # what a method can do is asked without torch
    from transformers import PreTrainedModel

    from factpatch.methods.workload import ModelShape, Workload
    from factpatch.models.locations import Location


@dataclass(frozen=True, config=SECTION)
class MemitSettings(ValueSettings):
    """Those of the target values, and the authors' weight of general keys."""

    mom2_update_weight: NotNegative = 15000.0  # of the keys' second moment beside the edits' own keys
    chunk: Count | None = None  # edits that are written together; null: all


class Memit:
    """Meng et al., arXiv 2210.07229."""

    name = "memit"
    settings_type = MemitSettings
    abilities = Abilities(several_layers=True, needs_subject=True)

    def refuse(self, model: PreTrainedModel, location: Location) -> None:
        """The MLP's output projections alone."""
        from factpatch.methods.projections import refuse_but_down

        refuse_but_down(self.name, model, location)

    def estimate(self, training: MemitSettings, rows: TrainingRows, shape: ModelShape) -> Workload:
        """The target values' passes, and a second moment for each layer."""
        return value_workload(training, rows, shape, matrices=1)

    def run(self, job: EditJob) -> TrainingResult:
        """Write all edits at once, or chunk by chunk."""
        from factpatch.methods.locate_then_edit.spreading import locate_then_edit
        from factpatch.methods.memit.solve import MemitSolver

        settings = job.training
        return locate_then_edit(job, settings.chunk, lambda moments: MemitSolver(moments, settings.mom2_update_weight))
