"""The located tensors while they are trained: float32 masters, and the model as found afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from factpatch.models import preserved
from factpatch.structure import Location


class Masters:
    """Float32 copies of the located parameters; the optimizer moves these, the model follows after every step."""

    def __init__(self, model: PreTrainedModel, location: Location) -> None:
        self.names = location.parameters
        self._parameters = [model.get_parameter(name) for name in self.names]
        self.tensors = [parameter.detach().float().clone() for parameter in self._parameters]

    def begin_with(self, values: Mapping[str, torch.Tensor]) -> None:
        """Take other values than the model's, and show them to it."""
        for name, master in zip(self.names, self.tensors, strict=True):
            master.copy_(values[name])
        self.write_back()

    def clear_gradients(self) -> None:
        """Start a mini-batch."""
        for master, parameter in zip(self.tensors, self._parameters, strict=True):
            master.grad = parameter.grad = None

    def take_gradients(self) -> None:
        """Add the model's gradients to the masters', in float32."""
        for master, parameter in zip(self.tensors, self._parameters, strict=True):
            if parameter.grad is None:
                raise AssertionError("a located parameter takes no part in the loss")
            gradient = parameter.grad.float()
            master.grad = gradient if master.grad is None else master.grad.add_(gradient)
            parameter.grad = None

    def squared_norm(self) -> torch.Tensor:
        """Of all gradients together."""
        return torch.stack([master.grad.square().sum() for master in self.tensors if master.grad is not None]).sum()

    def write_back(self) -> None:
        """Show the masters' values to the model, in its dtype."""
        with torch.no_grad():
            for master, parameter in zip(self.tensors, self._parameters, strict=True):
                parameter.copy_(master)

    def values(self, stored_dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """The new values by name, rounded to what a checkpoint in `stored_dtype` can hold, in the model's dtype."""
        pairs = zip(self.names, self.tensors, self._parameters, strict=True)
        return {name: master.to(stored_dtype).to(parameter.dtype) for name, master, parameter in pairs}


@contextmanager
def masters_of(model: PreTrainedModel, location: Location) -> Iterator[Masters]:
    """Masters of the located parameters; when the block ends, in any way, the model is bit for bit as before."""
    with preserved(model, location.parameters):
        for name in location.parameters:
            model.get_parameter(name).requires_grad_(True)
        yield Masters(model, location)
