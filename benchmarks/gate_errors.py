"""How often the capability gate errs, paired and unpaired, by simulation: `python -m benchmarks.gate_errors`.

A world is a share of items that the base model gets right, a share that the edit breaks, and a share that it repairs.
In each, two gates with the same rule (the 95 % interval of the fall against the margin) judge the same simulated
items: one knows which items turned (`factpatch.evaluation.paired`), one compares two scores as if of different items
(Newcombe's interval of a difference of shares). A release goes out only if a gate passes it; so a harmless edit that
is not passed is a false refusal, and a harmful one that is passed is a missed regression. Seeded; prints markdown.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy

from factpatch.evaluation.intervals import wilson
from factpatch.evaluation.paired import score_interval
from factpatch.settings.config import GateSettings

Interval = tuple[float, float]
SIZES = (100, 500, 2000)


@dataclass(frozen=True)
class World:
    """Shares of all items: right before the edit, broken by it, repaired by it."""

    name: str
    right: float
    broken: float
    repaired: float


HARMLESS = (
    World("nothing turns, base 99 %", 0.99, 0.0, 0.0),
    World("falls 2 points, base 99 %", 0.99, 0.02, 0.0),
    World("nothing lost, 4 % turn either way, base 60 %", 0.60, 0.04, 0.04),
    World("falls 2 points, 4 % turn up, base 60 %", 0.60, 0.06, 0.04),
)
HARMFUL = (
    World("falls 5 points, the margin, base 99 %", 0.99, 0.05, 0.0),
    World("falls 5 points, 4 % turn up, base 60 %", 0.60, 0.09, 0.04),
    World("falls 8 points, base 99 %", 0.99, 0.08, 0.0),
    World("falls 8 points, 4 % turn up, base 60 %", 0.60, 0.12, 0.04),
)


@cache
def paired_interval(before: int, broken: int, repaired: int, n: int) -> Interval:
    """What the gate uses; how many were right before does not matter."""
    return score_interval(broken, repaired, n)


@cache
def unpaired_interval(before: int, broken: int, repaired: int, n: int) -> Interval:
    """Newcombe's 95 % interval of the fall between two shares of different items (Statistics in Medicine 17, 1998)."""
    old, new = before / n, (before - broken + repaired) / n
    (old_low, old_high), (new_low, new_high) = wilson(old * n, n), wilson(new * n, n)
    below = math.hypot(old - old_low, new_high - new)
    above = math.hypot(old_high - old, new - new_low)
    return old - new - below, old - new + above


def shares(
    world: World, n: int, margin: float, rounds: int, interval: Callable[[int, int, int, int], Interval]
) -> dict[str, float]:
    """How often each verdict falls, over simulated runs of one world."""
    cells = (world.broken, world.right - world.broken, world.repaired, 1 - world.right - world.repaired)
    counts = {"passed": 0, "failed": 0, "undecided": 0}
    for broken, kept, repaired, _ in numpy.random.default_rng(0).multinomial(n, cells, rounds).tolist():
        low, high = interval(broken + kept, broken, repaired, n)
        counts["passed" if high <= margin else "failed" if low > margin else "undecided"] += 1
    return {verdict: count / rounds for verdict, count in counts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5000)
    parser.add_argument("--margin", type=float, default=GateSettings().capability_drop)
    args = parser.parse_args()
    gates = {"paired": paired_interval, "unpaired": unpaired_interval}
    for title, worlds, harmless in (("False refusals", HARMLESS, True), ("Missed regressions", HARMFUL, False)):
        print(f"{title}, percent of {args.rounds:,} simulated releases, margin {100 * args.margin:g} points:\n")
        header = [f"{gate}, {n:,} items" for n in SIZES for gate in gates]
        print(f"| the edit | {' | '.join(header)} |\n|{'---|' * (len(header) + 1)}")
        for world in worlds:
            cells = []
            for n in SIZES:
                for interval in gates.values():
                    found = shares(world, n, args.margin, args.rounds, interval)
                    wrong = 1 - found["passed"] if harmless else found["passed"]
                    cells.append(
                        f"{100 * wrong:.1f} ({100 * found['failed']:.1f} failed)" if harmless else f"{100 * wrong:.1f}"
                    )
            print(f"| {world.name} | {' | '.join(cells)} |")
        print()


if __name__ == "__main__":
    main()
