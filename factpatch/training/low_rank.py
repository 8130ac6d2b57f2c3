"""Low-rank training (LoRA, arXiv 2106.09685) at the same place in the same pipeline; the merged difference is kept.

Each located matrix W is W0 + scale * B A with factors A (rank, columns), seeded and random, and B (rows, rank), zero.
Stacks of matrices have a pair of factors for each.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from transformers import PreTrainedModel

from factpatch.training.masters import Masters
from factpatch.structure import Location

SCALE = 2.0  # LoRA's alpha over its rank, as is usual


class LowRankMasters(Masters):
    """As `Masters`, but the optimizer moves the factors: A and B of the first tensor, of the second, ..."""

    def __init__(self, model: PreTrainedModel, location: Location, rank: int, seed: int) -> None:
        super().__init__(model, location)
        generator = torch.Generator().manual_seed(seed)
        self.tensors = []
        for origin in self._origins:
            *stack, rows, columns = origin.shape
            inner = min(rank, rows, columns)
            reading = torch.randn((*stack, inner, columns), generator=generator) / columns**0.5
            self.tensors += [reading.to(origin.device), torch.zeros((*stack, rows, inner), device=origin.device)]

    def begin_with(self, values: Mapping[str, torch.Tensor]) -> None:
        """Take other values than the model's as W0; the factors start on top of them."""
        for name, start in zip(self.names, self._starts, strict=True):
            start.copy_(values[name])
        self.write_back()

    def take_gradients(self) -> None:
        """From the model's gradient G of W: scale * B' G for A, and scale * G A' for B."""
        for number, parameter in enumerate(self._parameters):
            if parameter.grad is None:
                raise AssertionError("a located parameter takes no part in the loss")
            gradient = SCALE * parameter.grad.float()
            reading, writing = self.tensors[2 * number : 2 * number + 2]
            for factor, slope in ((reading, writing.mT @ gradient), (writing, gradient @ reading.mT)):
                factor.grad = slope if factor.grad is None else factor.grad.add_(slope)
            parameter.grad = None

    def merged(self) -> list[torch.Tensor]:
        pairs = zip(self.tensors[::2], self.tensors[1::2], strict=True)
        return [start + SCALE * writing @ reading for start, (reading, writing) in zip(self._starts, pairs, strict=True)]
