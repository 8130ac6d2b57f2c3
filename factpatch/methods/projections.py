"""Linear projections at a location, for methods that compute with what a matrix reads and writes."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from factpatch.errors import InputError
from factpatch.models.locations import Location, decoder_blocks, roles


def projections(model: PreTrainedModel, location: Location) -> list[nn.Module]:
    """The modules whose weights are located, in the order of `location.parameters`."""
    return [model.get_submodule(name.rpartition(".")[0]) for name in location.parameters]


def sizes(projection: nn.Module) -> tuple[int, int]:
    """The width that a projection reads, and the one that it writes."""
    first, second = projection.get_parameter("weight").shape
    return (first, second) if isinstance(projection, Conv1D) else (second, first)


def as_stored(projection: nn.Module, change_OI: torch.Tensor) -> torch.Tensor:
    """A change of a projection's matrix (width written, width read) as its weight holds it: GPT-2's are transposed."""
    return change_OI.T if isinstance(projection, Conv1D) else change_OI


def refuse_but_projections(method: str, model: PreTrainedModel, location: Location) -> None:
    """InputError where a located tensor is not the weight of a linear projection, as stacks of experts are not."""
    for name in location.parameters:
        owner, _, leaf = name.rpartition(".")
        if leaf != "weight" or not isinstance(model.get_submodule(owner), (nn.Linear, Conv1D)):
            raise InputError(
                f"training method '{method}' writes into linear projections, and {name} at '{location.name}' is none; "
                "choose another location or method"
            )


def refuse_but_down(method: str, model: PreTrainedModel, location: Location) -> None:
    """InputError unless the location is the MLP's output projection of each of its layers."""
    refuse_but_projections(method, model, location)
    stack, _ = decoder_blocks(model)
    wanted = [f"{stack}.{layer}.{roles(model, layer).get('down')}.weight" for layer in location.layers]
    if list(location.parameters) != wanted:
        span = location.name.partition(":")[0]
        raise InputError(
            f"training method '{method}' writes into the MLP's output projection of each layer and nothing else; "
            f"location '{location.name}' is not that: name {span}:down"
        )
