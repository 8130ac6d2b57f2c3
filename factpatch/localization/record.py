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
    """The value of `localize.json` but for the choice between trials, which `judged` adds."""
    trials = [place.trial for place in scored]
    return {
        "schema": SCHEMA,
        "location": {**location.to_json(), "parameters": list(location.parameters)},
        "reason": reason,
        "method": method,
        "sample": sample,
        "measured": "verified",
        "notes": list(notes),
        "candidates": [_candidate(place) for place in scored],
        "choice": None,
        "runner_up": None,
        "ranking": [
            {"location": place.location.name, **_place(place.location), **_rounded(place.signals)} for place in ranking
        ],
        "known": [{"location": place.location.name, "source": place.source} for place in known],
        "cost": {
            "trials": len(trials),
            "edits": sample * len(trials),
            "visits": sum(trial.visits for trial in trials),
            "operations": sum(trial.operations for trial in trials),
            "seconds": round(sum(trial.seconds for trial in trials), 3),
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
    last = list({trial.location: trial for trial in trials}.values())
    ranked = scorer.rank([trial for trial in last if trial.whole] or last)
    chosen, best = ranked[0], max(ranked, key=lambda place: place.score)
    value = record(
        method,
        chosen.trial.location,
        _reason(scorer, chosen, best, len(ranked), len(last)),
        sample,
        [scorer.score(trial) for trial in sorted(last, key=lambda trial: trial.location.layer)],
        ranking,
        known,
        [*notes, *(f"{trial.location.name}: {trial.failure}" for trial in last if trial.failure)],
    )
    value["choice"] = {**_summary(chosen), "price": _compared(scorer, best, chosen)}
    if len(ranked) > 1:
        value["runner_up"] = {**_summary(ranked[1]), "price": _compared(scorer, chosen, ranked[1])}
    value["cost"] |= {
        "trials": len(trials),
        "edits": sample * len(trials),
        "visits": sum(trial.visits for trial in trials),
        "operations": sum(trial.operations for trial in trials),
        "seconds": round(sum(trial.seconds for trial in trials), 3),
    }
    return value


def _reason(scorer: Scorer, chosen: Scored, best: Scored, tried: int, places: int) -> str:
    text = f"{chosen.trial.location.name} scores {chosen.score:.3f} ± {chosen.margin:.3f}"
    kind = "whole" if chosen.trial.whole else "short"
    if tried == 1:
        return f"{text}, and stood first of the {places} places tried"
    if chosen is best:
        return f"{text}, the best of {tried} {kind} runs"
    _, low, high = scorer.fall(best.trial, chosen.trial)
    return (
        f"{text}, equal to the best of {tried} {kind} runs, {best.trial.location.name} ({best.score:.3f}), within the "
        f"interval of their difference ({low:.3f} to {high:.3f}), and cheaper to edit, as a later layer is"
    )


def _compared(scorer: Scorer, first: Scored, second: Scored) -> dict[str, Any]:
    """What taking the second in place of the first costs: quality, and operations of a row as a multiple."""
    fall, low, high = scorer.fall(first.trial, second.trial)
    each = [place.trial.operations / place.trial.visits if place.trial.visits else None for place in (first, second)]
    return {
        "than": first.trial.location.name,
        "quality": round(fall, 6),
        "ci95": [round(low, 6), round(high, 6)],
        "operations": round(each[1] / each[0], 3) if each[0] and each[1] else None,
    }


def _summary(scored: Scored) -> dict[str, Any]:
    return {"location": scored.trial.location.name, "score": round(scored.score, 6), "margin": round(scored.margin, 6)}


def _candidate(scored: Scored) -> dict[str, Any]:
    trial = scored.trial
    return {
        **_summary(scored),
        **_place(trial.location),
        **scored.metrics,
        "run": "whole" if trial.whole else "short",
        "epochs": trial.epochs,
        "visits": trial.visits,
        "operations": trial.operations,
        "seconds": trial.seconds,
    }


def _place(location: Location) -> dict[str, Any]:
    """Where a heat map shows it: of several layers at the lowest, in a row of their own."""
    several = f" of {len(location.layers)} layers" if len(location.layers) > 1 else ""
    return {"layer": location.layer, "module": location.module + several}


def _rounded(values: dict[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else float(f"{value:.6g}") for name, value in values.items()}
