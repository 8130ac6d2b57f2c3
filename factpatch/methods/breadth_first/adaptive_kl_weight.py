"""How strongly the base model is kept, following held-out rows: kept ones and wordings that training never visits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from factpatch.methods.optimizer import Stepper

WATCHED_LIMIT = 64  # rows of each kind that are held out at most
WATCHED_ONE_IN = 10  # of so many rows one is held out
LEAST_PRESERVED, LEAST_LEARNT = 0.98, 0.95  # what the two signals should reach
FACTOR = 1.5  # by which an epoch's signals move the weight
RANGE = 4.0  # the weight stays within this factor of the one set
LIKELY = math.log(2)  # a token loss below it means: more likely than all other tokens together


@dataclass(frozen=True)
class RowKinds:
    """Which rows are what: `edits`, then their further wordings, then kept rows. Of the latter two the last few are
    watched instead of trained."""

    edits: int
    taught: int  # edits and wordings to train
    wordings: range  # watched
    kept: range  # to train
    still: range  # watched kept rows

    @staticmethod
    def of(rows: int, edits: int, wordings: int, watch: bool) -> RowKinds:
        """Of so many rows in all."""
        first = edits + wordings
        asked = min(WATCHED_LIMIT, wordings // WATCHED_ONE_IN) if watch else 0
        still = min(WATCHED_LIMIT, (rows - first) // WATCHED_ONE_IN) if watch else 0
        taught, last = first - asked, rows - still
        return RowKinds(edits, taught, range(taught, first), range(first, last), range(last, rows))


@dataclass(frozen=True)
class WatchedShares:
    """Share of watched kept rows whose answer is still likely, and of watched wordings whose target is; None if there
    are none."""

    kept: float | None
    said: float | None


def watched_shares(stepper: Stepper, wordings: Sequence[int], still: Sequence[int]) -> WatchedShares:
    """The signals with present values."""
    kept = stepper.look(still) <= LIKELY if len(still) else None
    said = stepper.look(wordings) <= LIKELY if len(wordings) else None
    return WatchedShares(*(None if one is None else one.float().mean().item() for one in (kept, said)))


def likely(stepper: Stepper, rows: Sequence[int]) -> list[int]:
    """Those rows whose target is likely with present values."""
    return [row for row, loss in zip(rows, stepper.look(rows).tolist(), strict=True) if loss <= LIKELY] if rows else []


def next_kl_weight(weight: float, setting: float, signals: WatchedShares) -> float:
    """More where kept rows move; less where they hold and wordings lag."""
    if signals.kept is not None and signals.kept < LEAST_PRESERVED:
        weight *= FACTOR
    elif signals.said is not None and signals.said < LEAST_LEARNT:
        weight /= FACTOR
    return min(max(weight, setting / RANGE), setting * RANGE)
