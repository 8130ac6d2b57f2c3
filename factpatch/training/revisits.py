"""Which edits an epoch visits: those not learnt yet, and learnt ones ever more rarely, but never for good."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

LONGEST = 8  # epochs that a learnt edit waits at most


@dataclass
class Revisits:
    """The plan of visits.

    An edit counts as learnt when each of its target tokens has at least the probability `confidence`. Each visit that
    finds it so doubles its wait; one that doesn't sets the wait back to one epoch.

    Attributes:
        hardest_N: the largest token loss of each edit at its last visit.
        due_N: the epoch from which on each edit is due again.
        wait_N: epochs it waits if its next visit finds it learnt.
    """

    confidence: float
    hardest_N: torch.Tensor
    due_N: torch.Tensor
    wait_N: torch.Tensor

    @staticmethod
    def start(count: int, confidence: float) -> Revisits:
        """All edits are due at once."""
        zeros_N = torch.zeros(count, dtype=torch.long)
        return Revisits(confidence, torch.full((count,), math.inf), zeros_N, zeros_N + 1)

    def due(self, epoch: int) -> torch.Tensor:
        """Indices of the edits to visit in this epoch."""
        return (self.due_N <= epoch).nonzero().flatten()

    def note(self, indices: torch.Tensor, hardest_B: torch.Tensor, epoch: int) -> None:
        """Take down what a visit found."""
        self.hardest_N[indices] = hardest_B
        learnt_B = hardest_B <= -math.log(self.confidence)
        wait_B = torch.where(learnt_B, self.wait_N[indices], 1)
        self.due_N[indices] = epoch + torch.where(learnt_B, 1 + wait_B, 1)
        self.wait_N[indices] = torch.where(learnt_B, (2 * wait_B).clamp(max=LONGEST), 1)

    def unsure(self) -> torch.Tensor:
        """Indices of the edits that were not found learnt at their last visit."""
        return (self.hardest_N > -math.log(self.confidence)).nonzero().flatten()
