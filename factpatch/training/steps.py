"""What breadth-first and depth-first training share: one optimizer step that refuses numbers that are not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from factpatch.encoding import Encoded
from factpatch.errors import RefusedError
from factpatch.forward import collate, edit_losses, target_logits
from factpatch.training.masters import Masters

Progress = Callable[[int, int, float], None]  # units done, units in all at most, loss


@dataclass(frozen=True)
class TrainingResult:
    """New values of the located tensors by name, and how training went.

    `losses`: the mean loss of every epoch (breadth-first), or the last loss of every edit (depth-first).
    """

    values: dict[str, torch.Tensor]
    losses: tuple[float, ...]
    steps: int


def backward(model: PreTrainedModel, masters: Masters, rows: Sequence[Encoded], pad: int) -> float:
    """The mean loss of a mini-batch, its gradients moved to the masters; RefusedError if any is not finite."""
    batch = collate(rows, pad, model.device)
    loss = edit_losses(target_logits(model, batch), batch).mean()
    value = loss.item()
    if not math.isfinite(value):
        raise RefusedError(f"the loss became {value}; nothing was written. Lower training.learning_rate and run again")
    loss.backward()
    masters.take_gradients()
    norm = sum(float(master.grad.square().sum()) for master in masters.tensors if master.grad is not None)
    if not math.isfinite(norm):
        raise RefusedError("a gradient is not finite; nothing was written. Lower training.learning_rate and run again")
    return value


def step(optimizer: torch.optim.Optimizer, masters: Masters) -> None:
    """Move the masters by their gradients and show the model the result."""
    optimizer.step()
    masters.write_back()
