"""How far a score fell, from the same items before and after: an interval of the fall, and how many items would tell.

A fall is counted so that positive is worse, in the unit of the score (shares in [0, 1]). Items that are right or wrong
are judged by the pairs that turned, as in McNemar's test; Tango's score interval (Statistics in Medicine 17, 1998)
turns that test round, and stays honest where few or none turned. Other scores are resampled item by item. Sizes of
text, which have no upper end, are compared as multiples of what they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from factpatch.evaluation.intervals import Z95

RESAMPLES = 4000
RESAMPLES_AT_ONCE = 200  # resamples drawn at once
RESAMPLING_SEED = 0
ITEM_LIMIT = 1_000_000  # items beyond which a task is said to be undecidable
LEAST_RESAMPLED = 20  # items, of fewer of which resampling says too little

Interval = tuple[float, float]


def score_interval(broken: float, repaired: float, n: float) -> Interval:
    """Tango's 95 % interval of the fall (broken - repaired) / n, of n items of which so many turned wrong and right.

    Counts need not be whole, so that the interval of a larger sample with the same rates can be had.
    """
    if n <= 0 or broken < 0 or repaired < 0 or broken + repaired > n:
        raise ValueError(f"{broken} broken and {repaired} repaired of {n} items")

    def deviation(fall: float) -> float:
        """How many standard errors the observed fall lies above `fall`, whose likeliest share of repairs is taken."""
        linear = (2 * n - broken + repaired) * fall - broken - repaired
        constant = -repaired * fall * (1 - fall)
        share = (math.sqrt(max(linear**2 - 8 * n * constant, 0.0)) - linear) / (4 * n)
        distance, variance = broken - repaired - n * fall, n * (2 * share + fall * (1 - fall))
        return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance)

    observed = (broken - repaired) / n
    low = _bisect(lambda fall: deviation(fall) > Z95, -1.0, observed)
    high = _bisect(lambda fall: deviation(fall) > -Z95, observed, 1.0)
    return low, high


def bootstrap_interval(falls: Sequence[float]) -> Interval:
    """95 % interval of the mean fall, by resampling the items' own falls in [-1, 1] with a fixed seed.

    Two made-up items go with them, one wholly broken and one wholly repaired: without them a few items that all stayed
    would look like certainty.
    """
    if not len(falls):
        raise ValueError("no items")
    return _resampled(numpy.append(numpy.asarray(falls, dtype=float), (1.0, -1.0)))


def relative_rise(before: Sequence[float], after: Sequence[float]) -> tuple[float, Interval] | None:
    """By what share the scores rose, on average over the items, with its 95 % interval by resampling them; None for
    fewer than LEAST_RESAMPLED items, or scores that are not finite and above 0."""
    values = numpy.asarray([before, after], dtype=float)
    if len(before) < LEAST_RESAMPLED or not numpy.isfinite(values).all() or not (values[0] > 0).all():
        return None
    rises = values[1] / values[0] - 1
    return float(rises.mean()), _resampled(rises)


def mean(values: Sequence[float], absent: str) -> dict[str, Any]:
    """The mean of numbers without an upper end, as JSON like a share's; no interval of fewer than LEAST_RESAMPLED."""
    if not values:
        return {"value": None, "n": 0, "ci95": None, "reason": absent}
    interval = list(_resampled(numpy.asarray(values, dtype=float))) if len(values) >= LEAST_RESAMPLED else None
    return {"value": math.fsum(values) / len(values), "n": len(values), "ci95": interval}


def _resampled(values: numpy.ndarray) -> Interval:
    """95 % interval of the mean, by drawing the values again with a fixed seed."""
    generator = numpy.random.default_rng(RESAMPLING_SEED)
    means = numpy.concatenate(
        [
            values[generator.integers(0, len(values), (RESAMPLES_AT_ONCE, len(values)))].mean(axis=1)
            for _ in range(RESAMPLES // RESAMPLES_AT_ONCE)
        ]
    )
    low, high = numpy.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def least_items(margin: float) -> int:
    """How many items that all stayed right put a fall of `margin` outside the interval; of fewer no outcome could."""
    if margin <= 0:
        return ITEM_LIMIT
    return math.ceil(Z95**2 * (1 - margin) / margin)


def items_needed(fall: float, interval: Interval, margin: float, n: int, turned: Interval | None = None) -> int | None:
    """How many more items like these would put the margin outside the interval; None if no reasonable number would.

    Args:
        fall: as observed.
        interval: of the fall.
        margin: the largest fall allowed.
        n: items so far.
        turned: how many of them broke and were repaired, where items are right or wrong.
    """

    def undecided(times: float) -> bool:
        if turned:
            low, high = score_interval(turned[0] * times, turned[1] * times, n * times)
        else:
            low, high = (fall + (bound - fall) / math.sqrt(times) for bound in interval)
        return low <= margin < high

    if undecided(ITEM_LIMIT / n):
        return None
    return math.ceil(n * _bisect(undecided, 1.0, ITEM_LIMIT / n)) - n


def _bisect(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Where a condition that holds at the low end ceases to hold."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return high
