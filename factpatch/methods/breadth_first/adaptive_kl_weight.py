"""The adaptive weight of the preservation term: raised or lowered by rows that are watched and never trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from factpatch.methods.optimizer import Stepper

LEAST_PRESERVED, LEAST_LEARNT = 0.98, 0.95  # what the two shares should reach
FACTOR = 1.5  # by which an epoch's shares move the weight
RANGE = 4.0  # the weight stays within this factor of the one set
LIKELY = math.log(2)  # a token loss below it means: more likely than all other tokens together


@dataclass(frozen=True)
class WatchedShares:
    """The shares of watched rows whose target is likely, of preserved and of augmented ones; None if there are none."""

    preserved: float | None
    augmented: float | None


def watched_shares(stepper: Stepper, augmented: Sequence[int], preserved: Sequence[int]) -> WatchedShares:
    """The shares with present values."""
    return WatchedShares(
        *(
            (stepper.look(rows) <= LIKELY).float().mean().item() if len(rows) else None
            for rows in (preserved, augmented)
        )
    )


def likely(stepper: Stepper, rows: Sequence[int]) -> list[int]:
    """Those rows whose target is likely with present values."""
    return [row for row, loss in zip(rows, stepper.look(rows).tolist(), strict=True) if loss <= LIKELY] if rows else []


def next_kl_weight(weight: float, setting: float, shares: WatchedShares) -> float:
    """The weight of the next epoch: more where preserved rows move; less where they hold and augmented ones lag."""
    if shares.preserved is not None and shares.preserved < LEAST_PRESERVED:
        weight *= FACTOR
    elif shares.augmented is not None and shares.augmented < LEAST_LEARNT:
        weight /= FACTOR
    return min(max(weight, setting / RANGE), setting * RANGE)
