"""Low-rank differences of matrices, added up so that every machine comes to the same bits."""

from __future__ import annotations

import torch

Factors = tuple[torch.Tensor, torch.Tensor]  # A (rank, columns) and B (rows, rank) of a difference B A


def with_difference(start: torch.Tensor, factors: Factors) -> torch.Tensor:
    """start + B A in float32. Ranks are added one after the other and number by number, as a matrix product may round
    otherwise on another machine, or with other threads."""
    value = start.to(torch.float32, copy=True)
    for reading, writing in zip(factors[0].unbind(-2), factors[1].unbind(-1), strict=True):
        value += writing[..., :, None] * reading[..., None, :]
    return value
