"""Where to write: short runs at every candidate on a sample of the edits, whole ones at the best third."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from factpatch.config import LocalizationSettings, Settings
from factpatch.editing import run_edit
from factpatch.edits.request import EditRequest
from factpatch.encoding import Encoded
from factpatch.errors import InputError
from factpatch.evaluation.evaluate import Answers, collect_answers, measure
from factpatch.models import LoadedModel, preserved, write_values
from factpatch.protection import protected_rows, sample_rows
from factpatch.structure import Location, default_module, layers_with, locate

METRICS = ("reliability", "generalization", "locality")
SHORT = 6  # a short run has a sixth of the epochs
FINALISTS = 3  # one candidate in three gets a whole run
SMALLEST = 8  # rows in a batch, which shrinks with the sample so that an epoch has about as many steps as the real one


@dataclass(frozen=True)
class Cell:
    """One candidate tried: what the sample's edits reached there, and what that took.

    `margin` is half the width of the score's 95 % interval.
    """

    location: Location
    score: float
    margin: float
    metrics: dict[str, Any]
    epochs: int
    seconds: float


@dataclass(frozen=True)
class Choice:
    """The chosen location, every cell tried (the last run of each candidate), and the reason in a sentence."""

    location: Location
    cells: tuple[Cell, ...]
    reason: str


def localize(
    loaded: LoadedModel,
    edits: Sequence[EditRequest],
    settings: Settings,
    progress: Callable[[int, int, str], None] | None = None,
) -> Choice:
    """Choose the location for these edits on this model; the model is left as found.

    `auto` gives every candidate a short run and the best third a whole one; `grid` gives all of them a whole run.
    """
    candidates = candidate_locations(loaded, settings.localization)
    size = min(settings.localization.sample, len(edits))
    sample = random.Random(settings.training.seed).sample(list(edits), size)
    before = collect_answers(loaded, sample, settings)
    share = size / len(edits)
    protected = sample_rows(protected_rows(loaded, edits, settings), share, settings.training.seed)
    whole = replace(
        settings.training,
        recipe="own",
        batch_size=settings.training.batch_size and max(SMALLEST, round(settings.training.batch_size * share)),
    )
    short = replace(whole, epochs=max(1, whole.epochs // SHORT))
    shortlist = settings.localization.method == "auto" and len(candidates) > 1
    kept = math.ceil(len(candidates) / FINALISTS)
    total = len(candidates) + (kept if shortlist else 0)
    cells: dict[str, Cell] = {}

    def try_all(locations: Sequence[Location], training: Any, done: int) -> None:
        for number, location in enumerate(locations, start=done + 1):
            cell = try_cell(loaded, location, sample, protected, before, replace(settings, training=training))
            cells[location.name] = cell
            if progress:
                progress(number, total, f"{location.name} scores {cell.score:.3f}")

    try_all(candidates, short if shortlist else whole, 0)
    finalists = candidates
    if shortlist:
        finalists = [cell.location for cell in rank(list(cells.values()))[:kept]]
        cut_short = [location for location in finalists if cells[location.name].epochs == short.epochs]
        try_all(cut_short, whole, len(candidates))
    chosen, reason = choose([cells[location.name] for location in finalists])
    return Choice(chosen.location, tuple(cells[location.name] for location in candidates), reason)


def candidate_locations(loaded: LoadedModel, settings: LocalizationSettings) -> list[Location]:
    """The named modules or roles at every layer that has them, each location once; without names, the MLP's output
    projection."""
    modules = settings.modules or (default_module(loaded.model),)
    pairs = sorted((layer, rank) for rank, module in enumerate(modules) for layer in layers_with(loaded.model, module))
    return list(dict.fromkeys(locate(loaded.model, f"{layer}:{modules[rank]}") for layer, rank in pairs))


def try_cell(
    loaded: LoadedModel,
    location: Location,
    sample: Sequence[EditRequest],
    protected: Sequence[Encoded],
    before: Answers,
    settings: Settings,
) -> Cell:
    """Edit the sample at one location, measure, and put the model back."""
    start = time.perf_counter()
    result = run_edit(loaded, location, sample, settings, protected)
    with preserved(loaded.model, location.parameters):
        write_values(loaded.model, result.values)
        after = collect_answers(loaded, sample, settings, before)
    measured = measure(sample, after, before, settings.evaluation.protocol)
    metrics = {name: measured[name] for name in METRICS}
    score, margin = weighted_score(metrics, settings.localization.weights)
    return Cell(location, score, margin, metrics, len(result.losses), round(time.perf_counter() - start, 3))


def weighted_score(metrics: dict[str, Any], weights: dict[str, float]) -> tuple[float, float]:
    """Weighted mean of the metrics that were measured, and half the width of its 95 % interval.

    A metric without probes has no say. The metrics count as independent.
    """
    known = {name: value for name, value in metrics.items() if value["value"] is not None}
    total = sum(weights.get(name, 0.0) for name in known)
    if total <= 0:
        raise InputError("localization.weights leaves no measured metric to choose by; give reliability a weight")
    shares = {name: weights.get(name, 0.0) / total for name in known}
    halves = {name: (value["ci95"][1] - value["ci95"][0]) / 2 for name, value in known.items()}
    score = sum(shares[name] * value["value"] for name, value in known.items())
    return score, math.hypot(*(shares[name] * halves[name] for name in known))


def rank(cells: Sequence[Cell]) -> list[Cell]:
    """Cells from the best: first those whose score equals the best within its interval, the latest layer first, since
    all below the location stays frozen and later is cheaper; then the others by score."""
    best = max(cells, key=lambda cell: cell.score)
    equal = [cell for cell in cells if cell.score >= best.score - best.margin]
    others = [cell for cell in cells if cell.score < best.score - best.margin]
    latest_first = sorted(equal, key=lambda cell: (-cell.location.layer, -cell.score))
    return latest_first + sorted(others, key=lambda cell: -cell.score)


def choose(cells: Sequence[Cell]) -> tuple[Cell, str]:
    """The first of the ranked cells, and why."""
    best = max(cells, key=lambda cell: cell.score)
    chosen = rank(cells)[0]
    reason = f"{chosen.location.name} scores {chosen.score:.3f}"
    if chosen is best:
        return chosen, f"{reason}, the best of the candidates"
    equal = f"equal within {best.margin:.3f} to the best, {best.location.name} ({best.score:.3f})"
    return chosen, f"{reason}, {equal}, and is the latest such layer, so the cheapest to edit"
