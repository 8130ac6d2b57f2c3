"""What MEMIT and AlphaEdit are alike in as methods: what they can do, and where they can write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from factpatch.methods.base import Abilities

if TYPE_CHECKING:  # what a method can do is asked without torch
    from transformers import PreTrainedModel

    from factpatch.models.locations import Location


class LocateThenEdit:
    """Target values at the subject's last token, written into the MLPs' output projections of several layers."""

    name: str
    abilities = Abilities(several_layers=True, needs_subject=True)

    def refuse(self, model: PreTrainedModel, location: Location) -> None:
        """The MLP's output projections alone."""
        from factpatch.methods.projections import refuse_but_down

        refuse_but_down(self.name, model, location)
