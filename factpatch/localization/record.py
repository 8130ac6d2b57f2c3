"""What a search says: the value of `localize.json`, with its reasons in words and in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from factpatch.localization.places import KnownPlace
from factpatch.localization.score import Scored, Scorer
from factpatch.localization.signals import Ranked
from factpatch.localization.trials import Trial
from factpatch.models.locations import Location

SCHEMA = 1


def record(
    method: str,
    location: Location,
    reason: str,
    sample: int = 0,
    scored: Sequence[Scored] = (),
    ranking: Sequence[Ranked] = (),
    known: Sequence[KnownPlace] = (),
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """The value of `localize.json` but for the choice between cells, which `judged` adds."""
    cells = [one.cell for one in scored]
    return {
        "schema": SCHEMA,
        "location": {"name": location.name, **_place(location), "parameters": list(location.parameters)},
        "reason": reason,
        "method": method,
        "sample": sample,
        "measured": "verified",
        "notes": list(notes),
        "candidates": [_candidate(one) for one in scored],
        "choice": None,
        "runner_up": None,
        "ranking": [
            {"location": one.location.name, **_place(one.location), **_rounded(one.signals)} for one in ranking
        ],
        "known": [{"location": one.location.name, "source": one.source} for one in known],
        "cost": {
            "trials": len(cells),
            "edits": sample * len(cells),
            "visits": sum(cell.visits for cell in cells),
            "operations": sum(cell.operations for cell in cells),
            "seconds": round(sum(cell.seconds for cell in cells), 3),
        },
    }


def judged(
    method: str,
    scorer: Scorer,
    trials: Sequence[Trial],
    sample: int,
    ranking: Sequence[Ranked],
    known: Sequence[KnownPlace],
    notes: Sequence[str],
) -> dict[str, Any]:
    """The value where places were tried: the first of those with a whole run, or, where none had one, of all.

    `trials` are all runs, a place's whole one after its short one; the last one of each place is its candidate.
    """
    last = list({cell.location: cell for cell in trials}.values())
    ranked = scorer.rank([cell for cell in last if cell.whole] or last)
    chosen, best = ranked[0], max(ranked, key=lambda one: one.score)
    value = record(
        method,
        chosen.cell.location,
        _reason(scorer, chosen, best, len(ranked), len(last)),
        sample,
        [scorer.score(cell) for cell in sorted(last, key=lambda cell: cell.location.layer)],
        ranking,
        known,
        [*notes, *(f"{cell.location.name}: {cell.failure}" for cell in last if cell.failure)],
    )
    value["choice"] = {**_summary(chosen), "price": _compared(scorer, best, chosen)}
    if len(ranked) > 1:
        value["runner_up"] = {**_summary(ranked[1]), "price": _compared(scorer, chosen, ranked[1])}
    value["cost"] |= {
        "trials": len(trials),
        "edits": sample * len(trials),
        "visits": sum(cell.visits for cell in trials),
        "operations": sum(cell.operations for cell in trials),
        "seconds": round(sum(cell.seconds for cell in trials), 3),
    }
    return value


def _reason(scorer: Scorer, chosen: Scored, best: Scored, tried: int, places: int) -> str:
    text = f"{chosen.cell.location.name} scores {chosen.score:.3f} ± {chosen.margin:.3f}"
    kind = "whole" if chosen.cell.whole else "short"
    if tried == 1:
        return f"{text}, and stood first of the {places} places tried"
    if chosen is best:
        return f"{text}, the best of {tried} {kind} runs"
    _, low, high = scorer.fall(best.cell, chosen.cell)
    return (
        f"{text}, equal to the best of {tried} {kind} runs, {best.cell.location.name} ({best.score:.3f}), within the "
        f"interval of their difference ({low:.3f} to {high:.3f}), and cheaper to edit, as a later layer is"
    )


def _compared(scorer: Scorer, first: Scored, second: Scored) -> dict[str, Any]:
    """What taking the second in place of the first costs: quality, and operations of a row as a multiple."""
    fall, low, high = scorer.fall(first.cell, second.cell)
    each = [one.cell.operations / one.cell.visits if one.cell.visits else None for one in (first, second)]
    return {
        "than": first.cell.location.name,
        "quality": round(fall, 6),
        "ci95": [round(low, 6), round(high, 6)],
        "operations": round(each[1] / each[0], 3) if each[0] and each[1] else None,
    }


def _summary(one: Scored) -> dict[str, Any]:
    return {"location": one.cell.location.name, "score": round(one.score, 6), "margin": round(one.margin, 6)}


def _candidate(one: Scored) -> dict[str, Any]:
    cell = one.cell
    return {
        **_summary(one),
        **_place(cell.location),
        **one.metrics,
        "run": "whole" if cell.whole else "short",
        "epochs": cell.epochs,
        "visits": cell.visits,
        "operations": cell.operations,
        "seconds": cell.seconds,
    }


def _place(location: Location) -> dict[str, Any]:
    return {"layer": location.layer, "module": location.module}


def _rounded(values: dict[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else float(f"{value:.6g}") for name, value in values.items()}
