"""AlphaEdit's change of a matrix: least squares in the null space of general keys."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from factpatch.errors import InputError


def null_space(moment_II: torch.Tensor, threshold: float) -> torch.Tensor:
    """The projection (I, I) onto eigenvectors of a second moment whose eigenvalue is below `threshold` times the mean
    eigenvalue; InputError where there is none."""
    value_I, vector_II = torch.linalg.eigh(moment_II)
    unused = vector_II[:, value_I < threshold * value_I.mean()]
    if not unused.shape[1]:
        least = float(value_I[0] / value_I.mean())
        raise InputError(
            "general text uses every direction: none is below training.options.nullspace_threshold "
            f"({threshold:g}), the least being {least:.2g}; raise it"
        )
    return unused @ unused.T


def alphaedit_change(
    key_IN: torch.Tensor, residual_ON: torch.Tensor, null_II: torch.Tensor, seen_II: torch.Tensor, l2: float
) -> torch.Tensor:
    """R K^T P (S P + K K^T P + l2 I)^-1, shape (O, I), with the projection P onto the null space and the sum S of K K^T
    of earlier chunks."""
    ridge_II = l2 * torch.eye(len(null_II), dtype=null_II.dtype, device=null_II.device)
    return torch.linalg.solve(null_II @ (key_IN @ key_IN.T + seen_II) + ridge_II, null_II @ key_IN @ residual_ON.T).T


class AlphaEditSolver:
    """Null spaces of every layer, and what the chunks so far have asked of it."""

    def __init__(self, moments: Sequence[torch.Tensor], threshold: float, l2: float) -> None:
        self._null_spaces = [null_space(moment, threshold) for moment in moments]
        self._seen = [torch.zeros_like(moment) for moment in moments]
        self._l2 = l2

    def change(self, layer: int, key_IN: torch.Tensor, residual_ON: torch.Tensor) -> torch.Tensor:
        """The change (O, I) of a layer's matrix."""
        return alphaedit_change(key_IN, residual_ON, self._null_spaces[layer], self._seen[layer], self._l2)

    def learn(self, keys: Sequence[torch.Tensor]) -> None:
        """Remember a chunk's keys, so that later ones leave what was written there."""
        for seen_II, key_IN in zip(self._seen, keys, strict=True):
            seen_II += key_IN @ key_IN.T
