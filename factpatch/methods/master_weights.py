"""The located tensors while they are trained: float32 masters, and the model as found afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from factpatch.models.linear import is_transposed, owner_of
from factpatch.models.loading import preserved
from factpatch.models.locations import Location
from factpatch.models.low_rank import Factors, with_difference

SCALE = 2.0  # of low-rank factors: LoRA's alpha over its rank, as is usual


class Masters:
    """Float32 copies of the located parameters; the optimizer moves these, the model follows after every step."""

    def __init__(self, model: PreTrainedModel, location: Location) -> None:
        self.names = location.parameters
        self._parameters = [model.get_parameter(name) for name in self.names]
        self.tensors = [parameter.detach().float().clone() for parameter in self._parameters]

    def start_from(self, values: Mapping[str, torch.Tensor]) -> None:
        """Take other values than the model's, and show them to it."""
        for name, master in zip(self.names, self.tensors, strict=True):
            master.copy_(values[name])
        self.write_back()

    def clear_gradients(self) -> None:
        """Start a mini-batch."""
        for tensor in (*self.tensors, *self._parameters):
            tensor.grad = None

    def take_gradients(self) -> None:
        """Add the model's gradients to the masters', in float32."""
        for master, parameter in zip(self.tensors, self._parameters, strict=True):
            if parameter.grad is None:
                raise AssertionError("a located parameter takes no part in the loss")
            gradient = parameter.grad.float()
            master.grad = gradient if master.grad is None else master.grad.add_(gradient)
            parameter.grad = None

    def finish_gradients(self) -> None:
        """End a mini-batch: all of its gradients are taken."""

    def squared_norm(self) -> torch.Tensor:
        """The squared Euclidean norm of all gradients together."""
        return torch.stack([master.grad.square().sum() for master in self.tensors if master.grad is not None]).sum()

    def merged(self) -> Sequence[torch.Tensor]:
        """The located tensors' present values in float32."""
        return self.tensors

    def write_back(self) -> None:
        """Show the present values to the model, in its dtype."""
        with torch.no_grad():
            for value, parameter in zip(self.merged(), self._parameters, strict=True):
                parameter.copy_(value)

    def values(self) -> dict[str, torch.Tensor]:
        """The new values by name, not rounded yet."""
        return dict(zip(self.names, self.merged(), strict=True))

    def factors(self) -> dict[str, Factors]:
        """Of low-rank training, the differences from the values that it began with; empty otherwise."""
        return {}


class DifferenceMasters(Masters):
    """Training of a difference: the optimizer moves `tensors` that say how far W is from W0."""

    def __init__(self, model: PreTrainedModel, location: Location) -> None:
        super().__init__(model, location)
        self._starts, self.tensors = self.tensors, []

    def start_from(self, values: Mapping[str, torch.Tensor]) -> None:
        """Take other values than the model's as W0."""
        for name, start in zip(self.names, self._starts, strict=True):
            start.copy_(values[name])
        self.write_back()


class LowRankMasters(DifferenceMasters):
    """Low-rank training (LoRA, arXiv 2106.09685): the optimizer moves factors, and W is W0 + SCALE * B A.

    `tensors` are A (rank, columns) and B (rows, rank) of the first located tensor, of the second, ...; stacks of
    matrices have a pair of factors for each. As PEFT does, the factor on the side that the matrix reads is random
    (uniform, up to 1 over the root of that side's size; seeded) and the other one zero.
    """

    def __init__(self, model: PreTrainedModel, location: Location, rank: int, seed: int) -> None:
        super().__init__(model, location)
        generator = torch.Generator().manual_seed(seed)
        for name, start in zip(self.names, self._starts, strict=True):
            *stack, rows, columns = start.shape
            inner = min(rank, rows, columns)
            factors = [torch.zeros((*stack, inner, columns)), torch.zeros((*stack, rows, inner))]
            reads_rows = is_transposed(owner_of(model, name))
            bound = (rows if reads_rows else columns) ** -0.5
            factors[reads_rows].uniform_(-bound, bound, generator=generator)
            self.tensors += [factor.to(start.device) for factor in factors]

    def take_gradients(self) -> None:
        """From the model's gradient G of W: SCALE * B' G for A, and SCALE * G A' for B."""
        for number, parameter in enumerate(self._parameters):
            if parameter.grad is None:
                raise AssertionError("a located parameter takes no part in the loss")
            gradient = SCALE * parameter.grad.float()
            reading, writing = self.tensors[2 * number : 2 * number + 2]
            for factor, slope in ((reading, writing.mT @ gradient), (writing, gradient @ reading.mT)):
                factor.grad = slope if factor.grad is None else factor.grad.add_(slope)
            parameter.grad = None

    def merged(self) -> Sequence[torch.Tensor]:
        """The located tensors' present values in float32."""
        factors = zip(self._starts, self.tensors[::2], self.tensors[1::2], strict=True)
        return [start + SCALE * writing @ reading for start, reading, writing in factors]

    def values(self) -> dict[str, torch.Tensor]:
        """The new values by name, not rounded yet, to the same bits wherever they are made from the factors."""
        starts = dict(zip(self.names, self._starts, strict=True))
        return {name: with_difference(starts[name], pair) for name, pair in self.factors().items()}

    def factors(self) -> dict[str, Factors]:
        """The differences from the values that training began with, scale included."""
        pairs = zip(self.names, self.tensors[::2], self.tensors[1::2], strict=True)
        return {name: (reading, SCALE * writing) for name, reading, writing in pairs}


@contextmanager
def located_for_training(model: PreTrainedModel, location: Location) -> Iterator[None]:
    """The located parameters take gradients while the block lasts; then all is bit for bit as before."""
    with preserved(model, location.parameters):
        for name in location.parameters:
            model.get_parameter(name).requires_grad_(True)
        yield


@contextmanager
def masters_of(model: PreTrainedModel, location: Location, rank: int | None = None, seed: int = 0) -> Iterator[Masters]:
    """Masters of the located parameters, low-rank ones with a `rank`; when the block ends, in any way, the model is bit
    for bit as before."""
    with located_for_training(model, location):
        if rank is None:
            yield Masters(model, location)
        else:
            yield LowRankMasters(model, location, rank, seed)
