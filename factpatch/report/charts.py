"""The geometry of the report's charts. Positions are percentages, so that a drawing stretches and its text does not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STARTS = (0.95, 0.9, 0.8, 0.5, 0.0)  # where an axis of shares may begin; each gives round labels in five steps
GRID_STEPS = 5
LEAST_SPAN = 0.2  # of a heat map's colours, so that equal scores look equal
LABELLED_LAYERS = 12  # layers whose cells are wide enough to hold their score


@dataclass(frozen=True)
class Axis:
    """A horizontal axis from `low` to `high`; `ticks` are (position, label)."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    def at(self, value: float) -> float:
        """The position of a value; what lies outside is put on the edge."""
        return round(100 * min(max((value - self.low) / (self.high - self.low), 0.0), 1.0), 2)


@dataclass(frozen=True)
class HeatMapCell:
    """One candidate of the heat map; `shade` in [0, 1] is its score as a colour."""

    x: float
    label: str
    title: str
    shade: float
    chosen: bool
    short: bool  # tried by a short run only


@dataclass(frozen=True)
class HeatMap:
    """A row of cells a module, a column a layer; the colours run from `low` to `high`."""

    rows: tuple[tuple[str, tuple[HeatMapCell, ...]], ...]
    ticks: tuple[tuple[float, str], ...]
    width: float  # of a cell
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """The training curve: `points` for a polyline, the grid as (y, label), and its last point."""

    points: str
    grid: tuple[tuple[float, str], ...]
    last: tuple[float, float]
    epochs: int


def share_axis(values: Iterable[float | None]) -> Axis:
    """An axis up to 100 % that begins at the latest round share below all `values`."""
    least = min((value for value in values if value is not None), default=0.0)
    low = next((start for start in STARTS if start <= least), 0.0)
    shares = [low + (1 - low) * step / GRID_STEPS for step in range(GRID_STEPS + 1)]
    return Axis(low, 1.0, tuple((100 * step / GRID_STEPS, f"{100 * share:.0f}") for step, share in enumerate(shares)))


def heat_map(
    candidates: Sequence[Mapping[str, Any]], location: Mapping[str, Any], ranking: Sequence[Mapping[str, Any]] = ()
) -> HeatMap | None:
    """Localization scores by layer and module; None where nothing was tried.

    `location` is the chosen place; `ranking` names every place, so also layers that were not tried.
    """
    if not candidates:
        return None
    layers = range(max(place["layer"] for place in [*candidates, *ranking]) + 1)
    scores = [candidate["score"] for candidate in candidates]
    high = max(scores)
    low = min(*scores, high - LEAST_SPAN)
    width = 100 / len(layers)
    rows: dict[str, list[HeatMapCell]] = {}
    for candidate in sorted(candidates, key=_order):
        score, short = candidate["score"], candidate.get("run") == "short"
        cell = HeatMapCell(
            x=round(width * candidate["layer"], 3),
            label=f"{score:.2f}" if len(layers) <= LABELLED_LAYERS else "",
            title=f"{candidate['location']}: score {score:.3f}{', by a short run' if short else ''}",
            shade=round((score - low) / (high - low), 3),
            chosen=candidate["location"] == location.get("name"),
            short=short,
        )
        rows.setdefault(candidate["module"] or "whole block", []).append(cell)
    every = math.ceil(len(layers) / 10)
    ticks = tuple((round(width * (layer + 0.5), 3), str(layer)) for layer in layers if layer % every == 0)
    return HeatMap(tuple((module, tuple(cells)) for module, cells in rows.items()), ticks, width, low, high)


def _order(candidate: Mapping[str, Any]) -> tuple[bool, bool, str, int]:
    """Single matrices first, then groups of them, then whole blocks; within a module by layer."""
    module = candidate["module"] or ""
    return not module, "." not in module, module, candidate["layer"]


def loss_curve(losses: Sequence[float]) -> Curve | None:
    """The mean loss of every epoch on a logarithmic scale; None where there is none to draw."""
    known = [(epoch, math.log10(loss)) for epoch, loss in enumerate(losses) if loss > 0 and math.isfinite(loss)]
    if not known:
        return None
    low = math.floor(min(log for _, log in known))
    high = max(math.ceil(max(log for _, log in known)), low + 1)
    last = max(len(losses) - 1, 1)
    marks = [(round(100 * epoch / last, 2), round(100 * (high - log) / (high - low), 2)) for epoch, log in known]
    grid = tuple((100 * (high - power) / (high - low), f"{10.0**power:g}") for power in range(low, high + 1))
    return Curve(" ".join(f"{x},{y}" for x, y in marks), grid, marks[-1], len(losses))
