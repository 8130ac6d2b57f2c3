"""Which edits an epoch visits: those not learnt yet, and learnt ones ever more rarely, but never for good."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

LONGEST_WAIT = 8  # epochs that a learnt edit waits at most
RIGHT = 0.5  # probability of every target token from which on no other answer can be likelier
STEADY = 0.8  # ... from which on what other edits move does not soon change that


@dataclass
class ReviewSchedule:
    """When each edit is visited next, by how it fared at its last visit.

    An edit counts as learnt when each of its target tokens has at least the probability `confidence`. Each visit that
    finds it so doubles its wait; one that doesn't sets the wait back to one epoch. Edits that an earlier run learnt and
    that are right still stand in a line instead: those that are not steady are visited first, the others in turn. One
    that is found wrong leaves the line, and is learnt as any other.

    Attributes:
        hardest_N: the largest token loss of each edit at its last visit.
        due_N: the epoch from which on each edit is due again.
        wait_N: epochs it waits if its next visit finds it learnt.
        turn_N: its place in the line, the smallest first; -1 for one that does not stand there.
    """

    confidence: float
    hardest_N: torch.Tensor
    due_N: torch.Tensor
    wait_N: torch.Tensor
    turn_N: torch.Tensor

    @staticmethod
    def start(count: int, confidence: float) -> ReviewSchedule:
        """All edits are due at once."""
        zeros_N = torch.zeros(count, dtype=torch.long)
        return ReviewSchedule(confidence, torch.full((count,), math.inf), zeros_N, zeros_N + 1, zeros_N - 1)

    def due(self, epoch: int) -> torch.Tensor:
        """Indices of the edits to visit in this epoch, but for those in line."""
        return ((self.due_N <= epoch) & (self.turn_N < 0)).nonzero().flatten()

    def hardest(self, indices: torch.Tensor, count: int) -> torch.Tensor:
        """Of these, so many that were found least learnt at their last visit."""
        return indices[self.hardest_N[indices].argsort(descending=True, stable=True)[:count]]

    def turns(self, count: int) -> torch.Tensor:
        """At most `count` indices of edits that an earlier run learnt, in the order in which they are visited again:
        those that are right but not steady, the least steady first, then the others in turn."""
        line = (self.turn_N >= 0).nonzero().flatten()
        line = line[self.turn_N[line].argsort(stable=True)]
        loose_L = self.hardest_N[line].where(self.hardest_N[line] > _loss(STEADY, self.confidence), torch.tensor(0.0))
        return line[loose_L.argsort(descending=True, stable=True)[:count]]

    def note(self, indices: torch.Tensor, hardest_B: torch.Tensor, epoch: int) -> None:
        """Record the largest token losses that a visit of these edits found, and when each is due again; those in line
        that are right go to its end."""
        self.hardest_N[indices] = hardest_B
        wait_B, held_B = self.wait_N[indices], self.turn_N[indices] >= 0
        learnt_B = hardest_B <= self._enough()[indices]
        self.due_N[indices] = epoch + torch.where(learnt_B, 1 + wait_B, 1)
        self.wait_N[indices] = torch.where(learnt_B, (2 * wait_B).clamp(max=LONGEST_WAIT), 1)
        if len(indices):
            self.turn_N[indices] = torch.where(held_B & learnt_B, self.turn_N.max() + 1, -1)

    def line_up(self, generator: torch.Generator) -> None:
        """Put the edits that are answered right before training begins in the line of those that an earlier run learnt,
        in random order."""
        right = (self.hardest_N <= _loss(RIGHT, self.confidence)).nonzero().flatten()
        self.turn_N[right] = torch.randperm(len(right), generator=generator)

    def unsure(self) -> torch.Tensor:
        """Indices of the edits that were not found learnt at their last visit."""
        return self._beyond(self._enough())

    def unsteady(self) -> torch.Tensor:
        """Indices of the edits that were not found steady at their last visit."""
        return self._beyond(_loss(STEADY, self.confidence))

    def wrong(self) -> torch.Tensor:
        """Indices of the edits that were not surely answered right at their last visit."""
        return self._beyond(_loss(RIGHT, self.confidence))

    def _beyond(self, loss: float | torch.Tensor) -> torch.Tensor:
        return (self.hardest_N > loss).nonzero().flatten()

    def _enough(self) -> torch.Tensor:
        """The largest token loss with which each counts as learnt."""
        return torch.where(self.turn_N >= 0, _loss(RIGHT, self.confidence), -math.log(self.confidence))


def _loss(probability: float, confidence: float) -> float:
    """The token loss at that probability, or at the one asked for where that is less."""
    return -math.log(min(probability, confidence))
