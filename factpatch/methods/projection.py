"""Null-space projection of updates: they leave alone the directions that preserved rows use in the located matrices.

A matrix W reads inputs x. An update D with D x = 0 for all kept inputs changes nothing there; so every update is
multiplied by a projection P made from the inputs' second moments C = mean of x x' (as in AlphaEdit, arXiv 2410.02355).
`hard` leaves open the directions of least variance, which together hold at most a share of all of it; `soft` shrinks a
direction of variance v to s / (s + v), where s is the variance at which `hard` would cut. The inputs are those of the
base model. Adam's steps have any direction, so P is applied to what a step changed, not to its gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from factpatch.frozen_trunk import Rows
from factpatch.models.batches import in_batches

Kind = Literal["hard", "soft"]
BATCH_ROWS = 64  # of a pass that collects inputs
SAMPLED_ROWS = 4096  # rows whose inputs are collected at most


class Projection:
    """For each located tensor its projection, or None where its inputs cannot be seen (stacks of experts)."""

    def __init__(self, matrices: Sequence[torch.Tensor | None], written_last: Sequence[bool]) -> None:
        self._matrices, self._written_last = matrices, written_last

    def apply(self, masters: Sequence[torch.Tensor], before: Sequence[torch.Tensor]) -> None:
        """Project, in place, what a step changed; `before` holds the values before it."""
        for master, old, matrix, last in zip(masters, before, self._matrices, self._written_last, strict=True):
            if matrix is not None:
                moved = master - old
                master.copy_(old + (matrix @ moved if last else moved @ matrix))


def make_projection(
    model: PreTrainedModel, names: Sequence[str], rows: Rows, kept: Sequence[int], kind: Kind, share: float
) -> Projection:
    """The projection for the located tensors from the inputs that the preserved rows give them, with present values."""
    moments = second_moments(model, names, rows, kept[:: -(-len(kept) // SAMPLED_ROWS)])
    owners = [model.get_submodule(name.rpartition(".")[0]) for name in names]
    matrices = [projector(moments[name], kind, share) if name in moments else None for name in names]
    return Projection(matrices, [isinstance(owner, Conv1D) for owner in owners])


def projector(moment: torch.Tensor, kind: Kind, share: float) -> torch.Tensor:
    """P from second moments; `share` is of the variance that updates may still reach."""
    variance, directions = torch.linalg.eigh(moment.double())
    variance = variance.clamp(min=0)
    reached = variance.cumsum(0) <= share * variance.sum()  # eigh sorts from the smallest on
    if kind == "hard":
        scale = reached.double()
    else:
        border = variance[reached.sum().clamp(max=len(variance) - 1)]
        scale = torch.where(variance > 0, border / (border + variance), 1.0)
    return (directions * scale @ directions.T).float()


def second_moments(
    model: PreTrainedModel, names: Sequence[str], rows: Rows, chosen: Sequence[int]
) -> dict[str, torch.Tensor]:
    """Mean of x x' over all positions of the chosen rows, for each named weight of a linear module."""
    sums: dict[str, torch.Tensor] = {}
    positions = sum(rows.lengths[index] for index in chosen)

    def moments(part: Sequence[int]) -> dict[str, torch.Tensor]:
        rows.predict(part)
        lengths = [rows.lengths[index] for index in part]
        found = {}
        for name, hidden in seen.items():
            real_PW = hidden.flatten(0, -2) if rows.packed else _real(hidden, lengths)
            found[name] = real_PW.float().T @ real_PW.float()
        return found

    with torch.no_grad(), _inputs(model, names) as seen:
        for _, found in in_batches(moments, chosen, BATCH_ROWS):
            for name, moment in found.items():
                sums[name] = sums[name] + moment if name in sums else moment
    return {name: total / positions for name, total in sums.items()}


def _real(hidden: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Positions that are no padding (P, W): each row's last ones."""
    hidden_BTW = hidden.reshape(len(lengths), -1, hidden.shape[-1])
    return torch.cat([row_TW[-length:] for row_TW, length in zip(hidden_BTW, lengths, strict=True)])


@contextmanager
def _inputs(model: PreTrainedModel, names: Sequence[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Collects what each linear module with a named weight last read."""
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, inputs: seen.__setitem__(name, inputs[0].detach())

    with ExitStack() as hooks:
        for name in names:
            owner, _, leaf = name.rpartition(".")
            module = model.get_submodule(owner)
            if leaf == "weight" and isinstance(module, (nn.Linear, Conv1D)):
                hooks.callback(module.register_forward_pre_hook(keep(name)).remove)
        yield seen
