"""The state of a breadth-first run: which rows it has, how far it has come, and its checkpoint."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch

from factpatch.methods.base import TrainingRows
from factpatch.methods.breadth_first.preservation_schedule import PreservationSchedule
from factpatch.methods.breadth_first.review_schedule import ReviewSchedule
from factpatch.methods.checkpoint import CheckpointPolicy, load_checkpoint, save_checkpoint, wait
from factpatch.methods.optimizer import Stepper
from factpatch.settings.config import TrainingSettings

CHECK_ROWS = 256  # rows of a forward pass that only checks
UNLEARNT_SHARE = 0.05  # share of the augmented rows that need not be learnt
PATIENCE_EPOCHS = 4  # epochs in which no fewer rows are unsure, after which a run ends where all edits are right


@dataclass(frozen=True)
class RowRanges:
    """Indices of edits, augmented and preserved rows among all rows of a run, which stand kind by kind."""

    edits: range
    augmented: range
    preserved: range

    @staticmethod
    def of(rows: TrainingRows) -> RowRanges:
        """The ranges of these rows."""
        edits, taught = len(rows.edits), len(rows.edits) + len(rows.augmented)
        return RowRanges(range(edits), range(edits, taught), range(taught, taught + len(rows.preserved)))

    @property
    def taught(self) -> range:
        """Rows that say what is new: edits and augmented ones."""
        return range(self.augmented.stop)


@dataclass
class Position:
    """How far a run has come: its counters and losses, everything but tensors."""

    epoch: int = 0
    cursor: int = 0  # rows of this epoch's order that are done
    steps: int = 0
    visits: int = 0
    total: float = 0.0  # loss summed over the rows visited in this epoch
    to_learn: int = 0  # rows of edits that did not hold yet when a warm-started run began; 0 in others
    fewest: int = -1  # rows that were unsure when an epoch ended, at the least; -1 before the first
    since: int = 0  # epochs that have ended since then
    losses: list[float] = field(default_factory=list)

    def note(self, unsure: int) -> None:
        """Record how many rows are unsure when an epoch ends."""
        fewer = self.fewest < 0 or unsure < self.fewest
        self.fewest, self.since = (unsure, 0) if fewer else (self.fewest, self.since + 1)


@dataclass
class Run:
    """The state of a run, which a checkpoint holds; `order` are the rows of the present epoch."""

    stepper: Stepper
    rows: RowRanges
    settings: TrainingSettings
    reviews: ReviewSchedule
    preservation: PreservationSchedule
    generator: torch.Generator
    position: Position
    order: torch.Tensor

    @staticmethod
    def start(stepper: Stepper, rows: RowRanges, settings: TrainingSettings) -> Run:
        """A run before its first epoch: every edit is due."""
        return Run(
            stepper,
            rows,
            settings,
            reviews=ReviewSchedule.start(len(rows.taught), settings.confidence),
            preservation=PreservationSchedule.start(len(rows.preserved), settings.seed),
            generator=torch.Generator().manual_seed(settings.seed),
            position=Position(),
            order=torch.empty(0, dtype=torch.long),
        )

    def review_all(self) -> torch.Tensor:
        """Look at all rows of edits without training; indices of those not learnt, which are due in the next epoch."""
        return review_all(self.stepper, self.reviews, self.position.epoch)

    def shuffled(self, due: torch.Tensor, preserved: torch.Tensor) -> torch.Tensor:
        """An epoch's order: rows of edits, and preserved ones counted from the first of them, at random."""
        visited = torch.cat([due, self.rows.preserved.start + preserved])
        return visited[torch.randperm(len(visited), generator=self.generator)]

    def learnt(self, unsure: torch.Tensor, augmented: int) -> bool:
        """Is every edit learnt, and of so many augmented rows all but a few?"""
        return not (unsure < len(self.rows.edits)).any() and len(unsure) <= UNLEARNT_SHARE * augmented

    def converged(self, augmented: int, settled: bool = True) -> bool:
        """Does a check of all rows find them learnt while what is preserved has `settled`, or all right while none has
        become sure for long? What is preserved holds some back for good. The check is made once visits say so."""

        def ended(unsure: torch.Tensor) -> bool:
            waited = self.position.since >= PATIENCE_EPOCHS
            return (settled and self.learnt(unsure, augmented)) or (
                waited and self.learnt(self.reviews.wrong(), augmented)
            )

        return ended(self.reviews.unsure()) and ended(self.review_all())

    def save(self, policy: CheckpointPolicy) -> float:
        """Write the checkpoint; when the next one is due."""
        start = time.monotonic()
        stepper, reviews, preservation = self.stepper, self.reviews, self.preservation
        tensors = {"order": self.order, "generator": self.generator.get_state(), "hardest": reviews.hardest_N}
        tensors |= {"due": reviews.due_N, "wait": reviews.wait_N, "turn": reviews.turn_N, "moved": preservation.moved_K}
        for number, master in enumerate(stepper.masters.tensors):
            tensors[f"{number}.master"] = master
            tensors |= {f"{number}.{name}": value for name, value in stepper.optimizer.state[master].items()}
        numbers: dict[str, Any] = {**vars(self.position), "micro": stepper.micro, "preserved": preservation.next}
        save_checkpoint(policy.path, tensors, numbers, policy.identity)
        end = time.monotonic()
        return end + wait(policy.seconds, end - start)

    def restore(self, policy: CheckpointPolicy) -> None:
        """Go where the checkpoint says. Of two bounds of the micro-batch, that which the run had come to and the one
        asked for now, the smaller holds."""
        tensors, numbers = load_checkpoint(policy.path, policy.identity)
        stepper, reviews = self.stepper, self.reviews
        self.generator.set_state(tensors["generator"])
        reviews.hardest_N, reviews.turn_N = tensors["hardest"], tensors["turn"]
        reviews.due_N, reviews.wait_N = tensors["due"], tensors["wait"]
        self.preservation.moved_K, self.preservation.next = tensors["moved"], numbers.pop("preserved")
        for number, master in enumerate(stepper.masters.tensors):
            master.copy_(tensors[f"{number}.master"])
            state = {name: tensors[f"{number}.{name}"] for name in ("step", "exp_avg", "exp_avg_sq")}
            stepper.optimizer.state[master] = {
                name: value if name == "step" else value.to(master.device) for name, value in state.items()
            }
        stepper.masters.write_back()
        stepper.micro = min((size for size in (numbers.pop("micro"), stepper.micro) if size), default=None)
        self.order, self.position = tensors["order"], Position(**numbers)


def review_all(stepper: Stepper, reviews: ReviewSchedule, epoch: int) -> torch.Tensor:
    """Look at all rows of a review schedule without training; indices of those not learnt, due in the next epoch."""
    count = len(reviews.hardest_N)
    for start in range(0, count, CHECK_ROWS):
        part = torch.arange(start, min(start + CHECK_ROWS, count))
        reviews.note(part, stepper.look(part.tolist()), epoch)
    return reviews.unsure()
