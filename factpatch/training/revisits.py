"""Which edits an epoch visits: those not learnt yet, and learnt ones ever more rarely, but never for good."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

LONGEST = 8  # epochs that a learnt edit waits at most
HELD = 0.8  # probability of every target token from which on an edit that was learnt in an earlier run still holds


@dataclass
class Revisits:
    """The plan of visits.

    An edit counts as learnt when each of its target tokens has at least the probability `confidence`. Each visit that
    finds it so doubles its wait; one that doesn't sets the wait back to one epoch. For edits that an earlier run learnt
    and that hold still, the smaller HELD is enough, until they are lost once.

    Attributes:
        hardest_N: the largest token loss of each edit at its last visit.
        due_N: the epoch from which on each edit is due again.
        wait_N: epochs it waits if its next visit finds it learnt.
        enough_N: the largest token loss with which it counts as learnt.
    """

    confidence: float
    hardest_N: torch.Tensor
    due_N: torch.Tensor
    wait_N: torch.Tensor
    enough_N: torch.Tensor

    @staticmethod
    def start(count: int, confidence: float) -> Revisits:
        """All edits are due at once."""
        zeros_N = torch.zeros(count, dtype=torch.long)
        enough_N = torch.full((count,), -math.log(confidence))
        return Revisits(confidence, torch.full((count,), math.inf), zeros_N, zeros_N + 1, enough_N)

    def due(self, epoch: int) -> torch.Tensor:
        """Indices of the edits to visit in this epoch."""
        return (self.due_N <= epoch).nonzero().flatten()

    def note(self, indices: torch.Tensor, hardest_B: torch.Tensor, epoch: int) -> None:
        """Take down what a visit found."""
        self.hardest_N[indices] = hardest_B
        wait_B, enough_B = self.wait_N[indices], self.enough_N[indices]
        learnt_B = hardest_B <= enough_B
        self.due_N[indices] = epoch + torch.where(learnt_B, 1 + wait_B, 1)
        self.wait_N[indices] = torch.where(learnt_B, torch.maximum(wait_B, (2 * wait_B).clamp(max=LONGEST)), 1)
        self.enough_N[indices] = torch.where(learnt_B, enough_B, -math.log(self.confidence))

    def rest(self, generator: torch.Generator) -> None:
        """After a look at all rows before the first epoch: those that hold need no more than to hold on, and take
        turns, in random order, so that an epoch visits about as many of them as there are others to learn."""
        enough = -math.log(min(HELD, self.confidence))
        held = (self.hardest_N <= enough).nonzero().flatten()
        others = max(len(self.hardest_N) - len(held), 1)
        self.enough_N[held] = enough
        self.wait_N[held] = max(len(held) // others, LONGEST)
        self.due_N[held] = torch.randperm(len(held), generator=generator) // others

    def unsure(self) -> torch.Tensor:
        """Indices of the edits that were not found learnt at their last visit."""
        return (self.hardest_N > self.enough_N).nonzero().flatten()
