"""Every share with the number of items behind it and a 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Z95 = 1.959963984540054  # standard normal quantile of 0.975


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share. Partial successes are allowed: for values in [0, 1] it is then too wide, if
    anything, because no such values vary more than zeros and ones of the same mean."""
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} are no share")
    mean, spread = successes / n, Z95**2 / n
    centre = (mean + spread / 2) / (1 + spread)
    half = math.sqrt(mean * (1 - mean) * spread + (spread / 2) ** 2) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def share(values: Sequence[float], absent: str) -> dict[str, Any]:
    """The mean of values in [0, 1] as JSON: value, n, ci95; without values, null and the reason `absent`."""
    if not values:
        return {"value": None, "n": 0, "ci95": None, "reason": absent}
    total, n = math.fsum(values), len(values)
    return {"value": total / n, "n": n, "ci95": list(wilson(total, n))}
