"""The scorecard: every metric as a share of what was asked, over all edits, by their source and by their relation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from factpatch.edits.request import EditRequest
from factpatch.evaluation.intervals import share
from factpatch.evaluation.paired import mean
from factpatch.text.words import blanked

GROUP_LIMIT = 40  # of one kind at most; what is beyond is one group more
OTHERS = "(others)"
JUDGEABLE = ("reliability", "generalization", "portability")  # metrics that compare an answer with a target

MADE = {"generalization": "paraphrases", "locality": "locality", "locality_content": "locality"}  # of what items

Row = Mapping[str, Any]


def metrics(rows: Sequence[Row], judged: bool = False) -> dict[str, Any]:
    """Every metric of a set of edits, from their rows in `evaluate.json`; null with a reason where nothing counts, and
    how many of the items the run made (`made`).
    `judged` adds those that a judge's verdicts in the rows give."""

    def pooled(kind: str, field: str) -> list[float]:
        return [item[field] for row in rows for item in row[kind] if item[field] is not None]

    neighbours = [item for row in rows for item in row["locality"]]
    no_probe, no_edit = "no edit has a locality probe", "there are no edits"
    found = {
        "reliability": share([row["reliable"] for row in rows], no_edit),
        "generalization": share(pooled("paraphrases", "correct"), "no edit has a paraphrase"),
        "locality": _locality(neighbours, "unchanged"),
        "locality_content": _locality(neighbours, "content"),
        "locality_divergence": mean(pooled("locality", "divergence"), "the distributions were not compared"),
        "locality_stops": _locality(neighbours, "stops"),
        "locality_correct": share(
            pooled("locality", "correct"), "no locality probe lists an answer" if neighbours else no_probe
        ),
        "portability": share(pooled("portability", "correct"), "no edit has a portability probe"),
        "token_accuracy": share([row["token_accuracy"] for row in rows], no_edit),
    }
    for name, kind in MADE.items():
        if made := sum(len(row[kind]) for row in rows if kind in row.get("made", ())):
            found[name]["made"] = made
    if not judged:
        return found
    asked = {
        "reliability": list(rows),
        "generalization": [item for row in rows for item in row["paraphrases"]],
        "portability": [item for row in rows for item in row["portability"] if item["correct"] is not None],
    }
    return found | {f"judged_{name}": _judged(asked[name], found[name].get("reason", "")) for name in JUDGEABLE}


def _locality(probes: Sequence[Row], kind: str) -> dict[str, Any]:
    """The share of answers that stayed (or of another kind), of those probes that the model answered before the edit:
    where it said nothing, nothing could change, so such a probe is unmeasured, and counted."""
    seen = [probe[kind] for probe in probes if probe[kind] is not None]
    unmeasured = sum(probe["before"] is not None for probe in probes) - len(seen)
    absent = "no edit has a locality probe" if not probes else "the answers of the model before the edit are not known"
    if unmeasured:
        absent = f"before the edit the model says nothing to any of the {unmeasured} locality probes"
    return {**share(seen, absent), "unmeasured": unmeasured}


def _judged(items: Sequence[Row], absent: str) -> dict[str, Any]:
    """The share that the judge accepts. What it did not get to counts as wrong, so that nothing is gained by asking
    less, and its number is told."""
    unjudged = sum(item["judged"] is None for item in items)
    return {**share([item["judged"] is True for item in items], absent), "unjudged": unjudged}


def by_group(
    edits: Sequence[EditRequest],
    name_of: Callable[[EditRequest], str],
    rows: Sequence[Row],
    rows_before: Sequence[Row] | None,
    judged: bool = False,
) -> dict[str, dict[str, Any]]:
    """The metrics of each group of edits by its name, largest first: `{"edits", <metric>..., "before": {<metric>}}`."""
    members: dict[str, list[int]] = {}
    for position, edit in enumerate(edits):
        members.setdefault(name_of(edit), []).append(position)
    ordered = sorted(members.items(), key=lambda group: (-len(group[1]), group[0]))
    rest = [position for _, positions in ordered[GROUP_LIMIT:] for position in positions]
    return {
        name: {
            "edits": len(positions),
            **metrics([rows[position] for position in positions], judged),
            "before": metrics([rows_before[position] for position in positions], judged) if rows_before else None,
        }
        for name, positions in [*ordered[:GROUP_LIMIT], *([(OTHERS, rest)] if rest else [])]
    }


def source_of(edit: EditRequest) -> str:
    """Where the row comes from."""
    return edit.source or "(no source)"


def relation_of(edit: EditRequest) -> str:
    """What is said of the subject: the prompt with the subject taken out, as in "{}'s capital is"."""
    found = blanked(edit.prompt, edit.subject or "")
    return found[0] if found else "(no subject)"
