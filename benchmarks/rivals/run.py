"""One rival on one sample: choose among its settings on other rows, write the edits, measure, and note it in a file.

A line is appended for every trial of a choice and for every finished rival; what stands in the file is not run again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import fmean

from benchmarks.rivals.bench import Bench, Line
from benchmarks.rivals.costs import Cost, counted, in_four_bits, shipped_bytes
from benchmarks.rivals.measures import (
    TUNED_BY,
    Measure,
    measure_all,
    measure_capability,
    measure_edits,
    perplexity,
)
from benchmarks.rivals.prompts import FORM_ROWS, Retrieval
from benchmarks.rivals.roster import Rival, Values
from factpatch.editing import edit_model
from factpatch.edits.request import EditRequest
from factpatch.errors import InputError, RefusedError
from factpatch.files import digest_value
from factpatch.localization.search import localize
from factpatch.methods.base import TrainingResult
from factpatch.methods.lookup import find_method, refuse_unfit
from factpatch.models.loading import preserved, write_values
from factpatch.models.locations import Location, locate
from factpatch.settings.config import Settings

WRITES = 0.5  # share of the edits written by the choice that writes most, below which a choice is no edit
BROKEN = -1.0  # mean of a choice with which training broke down, below that of every other


def check(bench: Bench, rival: Rival) -> None:
    """InputError, in one line, where a rival can't run on this model and sample."""
    place = bench.place(rival)
    for choice in rival.choices:
        try:
            settings = bench.settings(rival.values, choice)
            if place is not None:
                refuse_unfit(find_method(settings.training.method), bench.loaded.model, place, bench.sample.edits)
        except InputError as error:
            raise InputError(f"{rival.name}: {error}") from error


def run_rival(bench: Bench, rival: Rival) -> Line:
    """The line of a rival: from the file, or made and appended now."""
    digest = digest_value([rival.kind, str(rival.place), dict(rival.values), list(map(dict, rival.choices))])[:12]
    name = {"rival": rival.name, "digest": digest}
    if found := bench.find(kind="result", **name):
        return found
    _ = bench.base  # asked now, while the model is as it came: what a rival left behind would be no base
    choice = _choose(bench, rival, name)
    try:
        made = _measured(bench, rival, choice)
    except RefusedError as error:  # it broke down, and the table says so
        made = {"refused": str(error)}
    return bench.note({"kind": "result", **name, "title": rival.title, "choice": dict(choice), **made})


def _choose(bench: Bench, rival: Rival, name: Line) -> Values:
    """The choice with the best mean of TUNED_BY on the tuning rows, the first of equals, of those that write: a step so
    small that nothing changes keeps all, and would be a method's setting that its authors call broken."""
    if len(rival.choices) == 1:
        return rival.choices[0]
    lines = []
    for choice in rival.choices:
        own = {"kind": "trial", **name, "choice": dict(choice)}
        lines.append(bench.find(**own) or bench.note({**own, **_trial(bench, rival, choice)}))
    written = [line.get("reliability", 0.0) for line in lines]
    means = [
        line["mean"] if share >= WRITES * max(written) else BROKEN for line, share in zip(lines, written, strict=True)
    ]
    return rival.choices[means.index(max(means))]


def _trial(bench: Bench, rival: Rival, choice: Values) -> Line:
    """A run on the tuning rows alone, with a few measures."""
    tuning = bench.sample.tuning
    try:
        with _applied(bench, rival, choice, tuning) as edit:
            found = measure_edits(bench.loaded, tuning, bench.base, bench.measuring)
    except RefusedError as error:
        return {"mean": BROKEN, "refused": str(error)}
    shares = {name: found[name]["value"] for name in TUNED_BY if found[name]["value"] is not None}
    return {"mean": fmean(shares.values()), **shares, "seconds": edit.cost.seconds}


def _measured(bench: Bench, rival: Rival, choice: Values) -> Line:
    """All that a rival's line says beside its name."""
    if rival.kind == "base":
        return {"measures": _measures(bench)}
    if rival.kind == "retrieval":
        return _retrieved(bench)
    with _applied(bench, rival, choice, bench.sample.edits) as edit:
        measures = _measures(bench)
        line = {"location": edit.location.name, "epochs": len(edit.result.losses), "steps": edit.result.steps}
        if not bench.brief:
            write_values(bench.loaded.model, in_four_bits(edit.result.values))
            measures |= {"q4_reliability": _reliability(bench)}
            line |= {"bytes": shipped_bytes(bench.loaded, edit.location, edit.result, edit.settings)}
    return {**line, **_told(edit.cost), "measures": measures}


def _measures(bench: Bench) -> dict[str, Measure]:
    """What is measured of the model as it is now."""
    loaded, sample, settings = bench.loaded, bench.sample, bench.measuring
    if bench.brief:
        found = measure_edits(loaded, sample.edits, bench.base, settings)
        return found | {"perplexity": perplexity(loaded, bench.base, settings)}
    found = measure_all(loaded, sample, bench.base, settings)
    return found | (measure_capability(loaded, sample.edits, bench.base, settings) if bench.capability else {})


def _retrieved(bench: Bench) -> Line:
    """The model as it is, asked with the nearest edit before each prompt."""
    with counted() as cost:
        retrieval = Retrieval(bench.sample.edits)
    size = sum(len(f"{edit.prompt}{edit.target}".encode()) for edit in bench.sample.edits)
    found = measure_all(bench.loaded, bench.sample, bench.base, bench.measuring, retrieval.before)
    return {"bytes": size, **_told(cost), "measures": found}


def _reliability(bench: Bench) -> Measure:
    """Of the edits that are asked in other forms too."""
    edits = [replace(edit, paraphrases=(), locality=(), portability=()) for edit in bench.sample.edits[:FORM_ROWS]]
    return measure_edits(bench.loaded, edits, bench.base, bench.measuring)["reliability"]


@dataclass(frozen=True)
class Applied:
    """An edit that the model holds now."""

    location: Location
    result: TrainingResult
    settings: Settings
    cost: Cost


@contextmanager
def _applied(bench: Bench, rival: Rival, choice: Values, edits: Sequence[EditRequest]) -> Iterator[Applied]:
    """Write the edits; the model holds them while the block lasts."""
    loaded, settings = bench.loaded, bench.settings(rival.values, choice)
    with counted() as cost:
        place = bench.place(rival)
        if place is None:
            place = locate(loaded.model, localize(loaded, edits, settings)["location"]["name"])
        result = edit_model(loaded, place, edits, settings).training
    with preserved(loaded.model, place.parameters):
        write_values(loaded.model, result.values)
        yield Applied(place, result, settings, cost)


def _told(cost: Cost) -> Line:
    return {"seconds": round(cost.seconds, 1), "memory": cost.memory}
