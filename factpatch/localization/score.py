"""What a place is worth, and which of two is better: quality first, and among equals the cheapest.

Quality is the weighted mean of reliability, generalization, locality and capability. All places answer the same
questions, so two of them are compared question by question; that tells smaller differences than two intervals side by
side. Among places equal to the best within the 95 % interval of the difference, the latest layer is the cheapest:
everything below it stays frozen, in this edit and in every later one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from factpatch.errors import InputError
from factpatch.evaluation.intervals import share
from factpatch.evaluation.paired import score_interval
from factpatch.localization.trial_set import UNMEASURED_REASONS, TrialSet
from factpatch.localization.trials import Trial

CLOSE = 0.06  # fall of quality that a later layer is worth: a small sample's interval would let any place be equal


@dataclass(frozen=True)
class Scored:
    """A trial with its metrics (value, n, ci95), their weighted mean, and half the width of its 95 % interval."""

    trial: Trial
    metrics: Mapping[str, Any]
    score: float
    margin: float

    @property
    def layer(self) -> int:
        return self.trial.location.layer


class Scorer:
    """Scores the trials of one trial set."""

    def __init__(self, trial_set: TrialSet, weights: Mapping[str, float]) -> None:
        self._of = {
            name: [index for index, question in enumerate(trial_set.questions) if question.metric == name]
            for name in UNMEASURED_REASONS
        }
        known = {name: weights.get(name, 0.0) for name, asked in self._of.items() if asked}
        total = sum(known.values())
        if total <= 0:
            raise InputError("localization.weights leaves no measured metric to choose by; give reliability a weight")
        self.weights = {name: weight / total for name, weight in known.items()}

    def score(self, trial: Trial) -> Scored:
        """The metrics of a trial, their weighted mean, and half the width of its 95 % interval.

        For the interval the metrics count as independent of each other, and so do their questions.
        """
        metrics = {
            name: share([trial.right[index] for index in asked], UNMEASURED_REASONS[name])
            for name, asked in self._of.items()
        }
        halves = [weight * _half(metrics[name]["ci95"]) for name, weight in self.weights.items()]
        value = math.fsum(weight * metrics[name]["value"] for name, weight in self.weights.items())
        return Scored(trial, metrics, value, math.hypot(*halves))

    def fall(self, better: Trial, worse: Trial) -> tuple[float, float, float]:
        """By how much the quality of one trial is below another's, with the 95 % interval of that difference: each
        metric's paired interval, their distances from the mean added in squares."""
        falls, below, above = [], [], []
        for name, weight in self.weights.items():
            pairs = [(better.right[index], worse.right[index]) for index in self._of[name]]
            broken, repaired = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
            low, high = score_interval(broken, repaired, len(pairs))
            fall = (broken - repaired) / len(pairs)
            falls.append(weight * fall)
            below.append(weight * (fall - low))
            above.append(weight * (high - fall))
        mean = math.fsum(falls)
        return mean, mean - math.hypot(*below), mean + math.hypot(*above)

    def rank(self, trials: Sequence[Trial]) -> list[Scored]:
        """From the best: first those equal to the best within the interval of the difference, the cheapest first; then
        the others by score."""
        scored = [self.score(trial) for trial in trials]
        best = max(scored, key=lambda place: place.score)
        falls = [(place, *self.fall(best.trial, place.trial)[:2]) for place in scored]
        equal = [place for place, fall, low in falls if place is best or (low <= 0 and fall <= CLOSE)]
        others = [place for place in scored if place not in equal]
        return sorted(equal, key=_cheapest) + sorted(others, key=lambda place: -place.score)


def _cheapest(place: Scored) -> tuple[int, float]:
    """Sort key: the latest layer first; of its places the best."""
    return -place.layer, -place.score


def _half(bounds: Sequence[float]) -> float:
    return (bounds[1] - bounds[0]) / 2
