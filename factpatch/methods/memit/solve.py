"""MEMIT's change of a matrix: least squares over the edits' keys and what the matrix was asked for before."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def memit_change(key_IN: torch.Tensor, residual_ON: torch.Tensor, prior_II: torch.Tensor) -> torch.Tensor:
    """R K^T (C + K K^T)^-1, shape (O, I), where C is the weighted second moment of general keys."""
    return residual_ON @ torch.linalg.solve(prior_II + key_IN @ key_IN.T, key_IN).T


class MemitSolver:
    """The same weight for the general keys of every layer; earlier chunks are not remembered."""

    def __init__(self, moments: Sequence[torch.Tensor], weight: float) -> None:
        self._priors = [weight * moment for moment in moments]

    def change(self, layer: int, key_IN: torch.Tensor, residual_ON: torch.Tensor) -> torch.Tensor:
        """The change (O, I) of a layer's matrix."""
        return memit_change(key_IN, residual_ON, self._priors[layer])

    def learn(self, keys: Sequence[torch.Tensor]) -> None:
        """Nothing: that the authors' chunks forget each other is what their fall over many shows."""
