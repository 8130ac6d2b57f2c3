"""The change of a matrix as a product of two thin ones, as adapters hold it: the best of its rank, by its SVD."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from factpatch.errors import InputError

RANKS = (8, 16, 32, 64, 128, 256)  # that vLLM admits as its largest (`--max-lora-rank`)


@dataclass(frozen=True)
class Spectrum:
    """The singular value decomposition of a change; `change` is `left * values @ right`."""

    left: torch.Tensor
    values: torch.Tensor
    right: torch.Tensor

    def factors(self, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A (rank, columns) and B (rows, rank), float32, whose product B A is the nearest matrix of that rank. Where
        the change has fewer ranks the rest are zeros."""
        kept = min(rank, len(self.values))
        root = self.values[:kept].sqrt()
        reading = torch.zeros(rank, self.right.shape[1])
        writing = torch.zeros(self.left.shape[0], rank)
        reading[:kept] = root[:, None] * self.right[:kept]
        writing[:, :kept] = self.left[:, :kept] * root
        return reading, writing


def check_rank(rank: int | None) -> None:
    """InputError for a rank that adapters do not have."""
    if rank is not None and not 1 <= rank <= RANKS[-1]:
        raise InputError(f"--rank {rank} is none that adapters have; name one from 1 to {RANKS[-1]}, as vLLM admits")


def spectrum(change: torch.Tensor) -> Spectrum:
    """Decompose the change of one matrix."""
    return Spectrum(*torch.linalg.svd(change.float(), full_matrices=False))


def loss(spectra: Iterable[Spectrum], rank: int) -> float:
    """What is left out of changes at a rank, as a share of their norm, all of them together."""
    squares = [found.values.double().square() for found in spectra]
    whole = sum(float(square.sum()) for square in squares)
    return (sum(float(square[rank:].sum()) for square in squares) / whole) ** 0.5 if whole else 0.0
