"""Which preserved rows an epoch visits, and how many."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from factpatch.settings.training import PreservationSettings

MOVED_LOSS = 0.2  # loss of a preserved row, before its weight, from which on it counts as moved
FEW_MOVED = 0.1  # share of the preserved rows
MOVED_SHARE = 0.5  # of an epoch's preserved rows goes to moved ones at most


@dataclass
class PreservationSchedule:
    """The order in which a warm-started run visits its preserved rows.

    Such a run has few epochs, so the rows stand in line and none is left out; rows that a visit finds moved come back
    at once.

    Attributes:
        line_K: the preserved rows in the order in which they are visited, over and over.
        moved_K: the loss of each at its last visit.
        next: how many the line has given so far.
    """

    line_K: torch.Tensor
    moved_K: torch.Tensor
    next: int = 0

    @staticmethod
    def start(count: int, seed: int) -> PreservationSchedule:
        """The rows in line in random order; none is known to have moved."""
        return PreservationSchedule(
            torch.randperm(count, generator=torch.Generator().manual_seed(seed)), torch.zeros(count)
        )

    def draw(self, count: int, returning: bool) -> torch.Tensor:
        """The next `count` rows; with `returning`, up to MOVED_SHARE of them the most moved ones."""
        worst = self.moved_K.argsort(descending=True, stable=True)[: round(MOVED_SHARE * count) if returning else 0]
        moved = worst[self.moved_K[worst] > MOVED_LOSS]
        begin, self.next = self.next, self.next + count - len(moved)
        return torch.cat([moved, self.line_K[torch.arange(begin, self.next) % max(1, len(self.line_K))]])

    @property
    def settled(self) -> bool:
        """Whether no more than FEW_MOVED of the rows were moved at their last visits."""
        return int((self.moved_K > MOVED_LOSS).sum()) <= FEW_MOVED * len(self.moved_K)

    def note(self, indices: torch.Tensor, loss_B: torch.Tensor) -> None:
        """Record the loss of visited rows."""
        self.moved_K[indices] = loss_B


def preserved_in_epoch(preservation: PreservationSettings, due: int, count: int, share: float = 1.0) -> int:
    """How many of `count` preserved rows an epoch visits with `due` rows of edits; `share` scales `least`."""
    least = round(share * preservation.least) if due else 0
    return min(count, max(round(due * preservation.ratio), least))
