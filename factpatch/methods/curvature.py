"""Directions of high curvature, found by Kronecker factors and taken out of gradients (CrispEdit, arXiv 2602.15823).

The curvature of a loss at a matrix W is taken as the Kronecker product of two second moments (K-FAC): of what W reads,
and of the loss's gradient at what W writes. In their eigenbases it is diagonal, and its entries are products of
eigenvalues. A gradient of W loses its part in the directions of large products, which together hold a given share of
all curvature. Steps along the others change the loss little.

Shape suffixes: R rows and C columns of W as the model holds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from factpatch.errors import RefusedError


@dataclass(frozen=True)
class KroneckerFactors:
    """Second moments along the rows and the columns of a matrix, as means over so many tokens."""

    rows_RR: torch.Tensor
    columns_CC: torch.Tensor
    tokens: int


@dataclass(frozen=True)
class HeldDirections:
    """Directions that a matrix is not to move in: the marked pairs of eigenvectors, which are columns."""

    rows_RR: torch.Tensor
    columns_CC: torch.Tensor
    held_RC: torch.Tensor


Held = Mapping[str, HeldDirections]  # by the name of the parameter


def pooled(one: KroneckerFactors, other: KroneckerFactors) -> KroneckerFactors:
    """The factors over the tokens of both."""
    tokens = one.tokens + other.tokens
    rows_RR, columns_CC = (
        (own * one.tokens + theirs * other.tokens) / tokens
        for own, theirs in ((one.rows_RR, other.rows_RR), (one.columns_CC, other.columns_CC))
    )
    return KroneckerFactors(rows_RR, columns_CC, tokens)


def held_directions(factors: KroneckerFactors, share: float) -> HeldDirections:
    """The fewest directions that together have this share of all curvature.

    RefusedError where the curvature is zero or not finite.
    """
    row_values_R, rows_RR = torch.linalg.eigh(_finite(factors.rows_RR).double())
    column_values_C, columns_CC = torch.linalg.eigh(_finite(factors.columns_CC).double())
    curvature_RC = torch.outer(row_values_R.clamp(min=0), column_values_C.clamp(min=0))
    falling = curvature_RC.flatten().sort(descending=True).values
    up_to = falling.cumsum(0)
    if not up_to[-1] > 0:
        raise RefusedError("general text has no curvature at a located matrix; check the model")
    last = min(int(torch.searchsorted(up_to, share * up_to[-1])), len(falling) - 1)
    dtype = factors.rows_RR.dtype
    return HeldDirections(rows_RR.to(dtype), columns_CC.to(dtype), curvature_RC >= falling[last])


def project(gradient_RC: torch.Tensor, held: HeldDirections) -> torch.Tensor:
    """The gradient without its part in the held directions."""
    part_RC = (held.rows_RR.T @ gradient_RC @ held.columns_CC) * held.held_RC
    return gradient_RC - held.rows_RR @ part_RC @ held.columns_CC.T


def _finite(moments: torch.Tensor) -> torch.Tensor:
    if not torch.isfinite(moments).all():
        raise RefusedError("the curvature of general text is not finite at a located matrix; use model.dtype float32")
    return moments
