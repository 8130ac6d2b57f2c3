"""UltraEdit as a method: where it can write, and how much work it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from factpatch.methods.base import Abilities, EditJob, TrainingResult, TrainingRows
from factpatch.methods.ultraedit.settings import ROWS_A_PASS, UltraEditSettings

if TYPE_CHECKING:  # what a method can do is asked without torch
    from transformers import PreTrainedModel

    from factpatch.methods.workload import ModelShape, Workload
    from factpatch.models.locations import Location


class UltraEdit:
    """Gu et al., arXiv 2505.14679: one ridge regression a chunk of edits for each matrix."""

    name = "ultraedit"
    settings_type = UltraEditSettings
    abilities = Abilities(several_layers=True)

    def refuse(self, model: PreTrainedModel, location: Location) -> None:
        """Any linear projections will do."""
        from factpatch.methods.projections import refuse_but_projections

        refuse_but_projections(self.name, model, location)

    def estimate(self, training: UltraEditSettings, rows: TrainingRows, shape: ModelShape) -> Workload:
        """A pass forward and backward for each edit, and the activations of a chunk's tokens."""
        from factpatch.methods.workload import Workload, batch_passes

        passes = list(batch_passes(rows.edits, ROWS_A_PASS, None, layout="padded"))
        chunk = rows.edits[: training.chunk]
        held = 4 * shape.saved * sum(len(row.ids) - 1 for row in chunk)
        return Workload(passes, -(-len(rows.edits) // training.chunk), epochs=1, held_bytes=held)

    def run(self, job: EditJob) -> TrainingResult:
        """Change the located projections, chunk by chunk."""
        from factpatch.methods.ultraedit.editing import ultraedit

        return ultraedit(job)
