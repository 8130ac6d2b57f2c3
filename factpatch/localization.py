"""Where to write: short runs at every candidate on a sample of the edits, whole ones at the better half."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from factpatch.config import LocalizationSettings, Settings
from factpatch.editing import run_edit
from factpatch.edits.request import EditRequest
from factpatch.errors import InputError
from factpatch.evaluation.evaluate import Answers, collect_answers, measure
from factpatch.models import LoadedModel, preserved, write_values
from factpatch.structure import Location, decoder_blocks, default_module, locate

METRICS = ("reliability", "generalization", "locality")
SHORT = 4  # a short run has a quarter of the epochs
EQUAL = 0.02  # scores this close count as equal: the latest layer is then the cheapest to edit


@dataclass(frozen=True)
class Cell:
    """One candidate tried: what the sample's edits reached there, and what that took."""

    location: Location
    score: float
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

    `auto` gives every candidate a short run and the better half a whole one; `grid` gives all of them a whole run.
    """
    candidates = candidate_locations(loaded, settings.localization)
    size = min(settings.localization.sample, len(edits))
    sample = random.Random(settings.training.seed).sample(list(edits), size)
    before = collect_answers(loaded, sample, settings)
    whole = settings.training
    short = replace(whole, epochs=max(1, whole.epochs // SHORT))
    halves = settings.localization.method == "auto" and len(candidates) > 1
    total = len(candidates) + (len(candidates) + 1) // 2 if halves else len(candidates)
    cells: dict[str, Cell] = {}

    def try_all(locations: Sequence[Location], training: Any, done: int) -> None:
        for number, location in enumerate(locations, start=done + 1):
            cell = try_cell(loaded, location, sample, before, replace(settings, training=training))
            cells[location.name] = cell
            if progress:
                progress(number, total, f"{location.name} scores {cell.score:.3f}")

    try_all(candidates, short if halves else whole, 0)
    finalists = candidates
    if halves:
        ranked = sorted(candidates, key=lambda location: -cells[location.name].score)
        finalists = ranked[: (len(ranked) + 1) // 2]
        try_all(finalists, whole, len(candidates))
    chosen, reason = choose([cells[location.name] for location in finalists])
    return Choice(chosen.location, tuple(cells[location.name] for location in candidates), reason)


def candidate_locations(loaded: LoadedModel, settings: LocalizationSettings) -> list[Location]:
    """The named modules at every layer; without names, the MLP's output projection."""
    _, blocks = decoder_blocks(loaded.model)
    modules = settings.modules or (default_module(loaded.model),)
    return [locate(loaded.model, f"{layer}:{module}") for layer in range(len(blocks)) for module in modules]


def try_cell(
    loaded: LoadedModel, location: Location, sample: Sequence[EditRequest], before: Answers, settings: Settings
) -> Cell:
    """Edit the sample at one location, measure, and put the model back."""
    start = time.perf_counter()
    result = run_edit(loaded, location, sample, settings)
    with preserved(loaded.model, location.parameters):
        write_values(loaded.model, result.values)
        after = collect_answers(loaded, sample, settings, before)
    measured = measure(sample, after, before, settings.evaluation.protocol)
    metrics = {name: measured[name] for name in METRICS}
    score = weighted_score(metrics, settings.localization.weights)
    return Cell(location, score, metrics, len(result.losses), round(time.perf_counter() - start, 3))


def weighted_score(metrics: dict[str, Any], weights: dict[str, float]) -> float:
    """Weighted mean of the metrics that were measured; one without probes has no say."""
    known = {name: value["value"] for name, value in metrics.items() if value["value"] is not None}
    total = sum(weights.get(name, 0.0) for name in known)
    if total <= 0:
        raise InputError("localization.weights leaves no measured metric to choose by; give reliability a weight")
    return sum(weights.get(name, 0.0) * value for name, value in known.items()) / total


def choose(cells: Sequence[Cell]) -> tuple[Cell, str]:
    """The best cell, or a later layer that scores as well: all below the location stays frozen, so later is cheaper."""
    best = max(cells, key=lambda cell: cell.score)
    equal = [cell for cell in cells if cell.score >= best.score - EQUAL]
    chosen = max(equal, key=lambda cell: (cell.location.layer, cell.score))
    reason = f"{chosen.location.name} scores {chosen.score:.3f}"
    if chosen is not best:
        reason += f", within {EQUAL} of the best, {best.location.name} ({best.score:.3f}), and is a later layer"
    else:
        reason += ", the best of the candidates"
    return chosen, reason
