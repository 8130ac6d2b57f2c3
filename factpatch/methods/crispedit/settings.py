"""Settings of CrispEdit, and breadth-first training as its authors have it."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from factpatch.settings.training import (
    NO_AUGMENTATION,
    NO_PRESERVATION,
    SECTION,
    Count,
    Share,
    StepSize,
    TrainingSettings,
)

BATCH_ROWS = 32  # where `batch_size` is null


@dataclass(frozen=True, config=SECTION)
class CrispEditSettings:
    """What CrispEdit can be told; what `training` has too is taken from there."""

    learning_rate: Literal["auto"] | StepSize = 5e-4
    batch_size: Count | None = BATCH_ROWS
    micro_batch: Count | None = None
    epochs: Count = 25
    stop_loss: float = 0.01  # of an epoch, at which training ends
    seed: int = 0
    share: Share = 0.9  # of the curvature of general text whose directions no gradient may use
    chunk: Count | None = None  # edits that are written together, one chunk after the other; null: all at once

    def as_training(self) -> TrainingSettings:
        """The settings of breadth-first training."""
        return TrainingSettings(
            learning_rate=self.learning_rate,
            schedule="constant",
            batch_size=self.batch_size or BATCH_ROWS,
            micro_batch=self.micro_batch,
            epochs=self.epochs,
            revisit=False,
            stop_loss=self.stop_loss,
            seed=self.seed,
            loss_average="token",
            whitening=None,
            preservation=NO_PRESERVATION,
            augmentation=NO_AUGMENTATION,
        )
