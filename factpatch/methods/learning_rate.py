"""How large Adam's steps are where nobody says: a share of the trained matrices' own size.

A step of Adam moves every value by about the step size, so what a step does to a matrix is told by its size beside
the root mean square of the matrix's values. That share is much the same for every model: the paper's 5e-4 for models
of 7B and more, whose matrices hold values around 0.013, and the several thousandths that small models need, whose
values are around 0.2, are both about RELATIVE_STEP. Where matrices of several layers move together, each needs less:
the step is divided by the root of their number.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from transformers import PreTrainedModel

from factpatch.errors import RefusedError
from factpatch.models.locations import Location
from factpatch.models.placement import held
from factpatch.settings.config import TrainingSettings

RELATIVE_STEP = 0.04  # of the root mean square of the trained values; docs/benchmarks.md has the sweeps it comes from


def with_step_size(training: TrainingSettings, model: PreTrainedModel, location: Location) -> TrainingSettings:
    """The settings with a number as `learning_rate`: the one given, or what fits the location where it is `auto`.

    Raises RefusedError where all located values are zero, as no step is small beside them.
    """
    if training.learning_rate != "auto":
        return training
    with held(model, location.parameters):
        located = [model.get_parameter(name) for name in location.parameters]
        squares = sum(torch.linalg.vector_norm(own, dtype=torch.float64).square().item() for own in located)
        size = (squares / sum(own.numel() for own in located)) ** 0.5
    if not size > 0:
        raise RefusedError(f"every value at {location.name} is zero; set training.learning_rate to a number")
    step = RELATIVE_STEP * size / len(location.layers) ** 0.5
    return replace(training, learning_rate=float(f"{step:.3g}"))
