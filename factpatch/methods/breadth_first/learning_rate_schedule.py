"""The learning rate over a run: up in the first steps, then down along half a cosine."""

from __future__ import annotations

import math
from dataclasses import dataclass

from factpatch.settings.config import TrainingSettings

WARM_UP_STEPS = 10  # steps until the step size is reached
FLOOR = 0.1  # of the step size is left at the end of the way down


@dataclass(frozen=True)
class LearningRateSchedule:
    """Step sizes: constant, or up in the first steps, then down along half a cosine to the floor where `span` epochs
    and `least` steps end."""

    size: float
    span: int
    least: int
    falls: bool

    @staticmethod
    def of(settings: TrainingSettings, size: float = 1.0, span: float = 1.0, least: int = 0) -> LearningRateSchedule:
        """The schedule of a run: `size` and `span` are shares of the step size and of the epochs."""
        falls = settings.schedule == "decay"
        return LearningRateSchedule(size * settings.step_size, math.ceil(span * settings.epochs), least, falls)

    def at(self, epoch: float, steps: int) -> float:
        """The step size after so many epochs and steps."""
        if not self.falls:
            return self.size
        done = min(1.0, epoch / self.span, steps / self.least if self.least else 1.0)
        half_cosine = (1 + math.cos(math.pi * done)) / 2
        return self.size * min(1.0, (steps + 1) / WARM_UP_STEPS) * (FLOOR + (1 - FLOOR) * half_cosine)
