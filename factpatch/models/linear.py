"""Linear projections: which parameters are the weights of one, and which way round a weight lies."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D


def is_projection(module: nn.Module) -> bool:
    """Is a module one linear projection? Norms, embeddings and stacked experts are not."""
    return isinstance(module, (nn.Linear, Conv1D))


def owner_of(model: PreTrainedModel, name: str) -> nn.Module:
    """The module that the parameter of this name belongs to."""
    return model.get_submodule(name.rpartition(".")[0])


def is_projection_weight(model: PreTrainedModel, name: str) -> bool:
    """Is the parameter of this name the weight of a linear projection? Biases are not."""
    return name.endswith(".weight") and is_projection(owner_of(model, name))


def is_transposed(projection: nn.Module) -> bool:
    """Does a weight have a row for each number that is read, as in GPT-2, not for each that is written?"""
    return isinstance(projection, Conv1D)


def sizes(projection: nn.Module) -> tuple[int, int]:
    """The width that a projection reads, and the one that it writes."""
    first, second = projection.get_parameter("weight").shape
    return (first, second) if is_transposed(projection) else (second, first)
