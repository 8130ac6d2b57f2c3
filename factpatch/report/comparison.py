"""Two releases on one page: what each decided, what got better or worse between them, and what was done otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import factpatch.report.evidence as facts
from factpatch.report.charts import share_axis
from factpatch.report.evidence import Json, ReportedScore
from factpatch.report.page import ROW_LIMIT, environment, extent, provenance

SIDES = ("A", "B")
NO_VALUE = "–"  # as `flatten` shows a null


@dataclass(frozen=True)
class Pair:
    """One score in both releases; None where a release has none."""

    name: str
    first: ReportedScore | None
    second: ReportedScore | None

    @property
    def shown(self) -> ReportedScore:
        """The second release's number after its edits against the first one's, as a before and after."""
        left, right = self.first or ABSENT_SCORE, self.second or ABSENT_SCORE
        known = self.second or self.first or ABSENT_SCORE
        bounds = left.ci95_after, right.ci95_after
        return ReportedScore(self.name, left.after, right.after, None, *bounds, "", known.direction, unit=known.unit)

    @property
    def tone(self) -> str:
        """Good or bad where the two 95 % intervals do not overlap; else empty."""
        pair = self.shown
        if pair.fall is None or not pair.ci95_before or not pair.ci95_after:
            return ""
        apart = pair.ci95_before[1] < pair.ci95_after[0] or pair.ci95_after[1] < pair.ci95_before[0]
        return ("bad" if pair.fall > 0 else "good") if apart else ""


ABSENT_SCORE = ReportedScore("", None, None, None, None, None, "")


def render_comparison(first: Json, second: Json, names: Sequence[str] = SIDES) -> str:
    """The page of two releases as text.

    Args:
        first, second: what `read_release` gives for each.
        names: what to call the two beside A and B, such as their folders.
    """
    both = (first, second)
    scores = _pairs(*(facts.scorecard(run.get("release") or {}, run.get("evaluate") or {}) for run in both))
    capability = _pairs(*(facts.capability_scores(run.get("release") or {}, run.get("regress")) for run in both))
    return (
        environment()
        .get_template("comparison.html.j2")
        .render(
            releases=[_release(letter, name, run) for letter, name, run in zip(SIDES, names, both, strict=True)],
            letters=SIDES,
            scores=scores,
            shares=share_axis([0.0]),
            capability=capability,
            capability_axis=share_axis(value for pair in capability for value in extent(pair.shown)),
            gates=paired_gates(first, second),
            edits=compare_edits(first, second),
            differences=differences(first, second),
            limit=ROW_LIMIT,
        )
    )


def _release(letter: str, name: str, run: Json) -> dict[str, Any]:
    title, tone = facts.heading(run.get("release") or {})
    decision = facts.decision(run.get("release") or {})
    return {"letter": letter, "name": name, "title": title, "tone": tone, "decision": decision}


def _pairs(first: Iterable[ReportedScore], second: Iterable[ReportedScore]) -> list[Pair]:
    """Scores by name, those of the first release first; without those that neither measured."""
    left, right = ({score.name: score for score in scores} for scores in (first, second))
    pairs = [Pair(name, left.get(name), right.get(name)) for name in left | right]
    return [pair for pair in pairs if pair.shown.before is not None or pair.shown.after is not None]


def paired_gates(first: Json, second: Json) -> list[tuple[str, Json | None, Json | None]]:
    """Gates by name with both judgements, those whose verdict differs first."""
    left, right = (
        {gate["name"]: gate for gate in (run.get("release") or {}).get("gates") or []} for run in (first, second)
    )
    rows = [(name, left.get(name), right.get(name)) for name in left | right]
    return sorted(rows, key=lambda row: _word(row[1]) == _word(row[2]))


def _word(gate: Json | None) -> str | None:
    return facts.verdict(gate) if gate else None


def compare_edits(first: Json, second: Json) -> dict[str, list[tuple[Json, Json]]]:
    """Edits that differ, by how, as (row of A, row of B), known by id; a side that lacks the edit is empty."""
    left, right = (
        {row["id"]: row for row in (run.get("evaluate") or {}).get("edits") or []} for run in (first, second)
    )
    found: dict[str, list[tuple[Json, Json]]] = {
        "Lost: A says the target, B does not": [],
        "Gained: B says the target, A does not": [],
        "With another target": [],
        "Only in A": [],
        "Only in B": [],
    }
    lost, gained, changed, only_first, only_second = found.values()
    for name in left | right:
        pair = left.get(name, {}), right.get(name, {})
        if not pair[1]:
            only_first.append(pair)
        elif not pair[0]:
            only_second.append(pair)
        elif pair[0]["target"] != pair[1]["target"]:
            changed.append(pair)
        elif pair[0]["reliable"] != pair[1]["reliable"]:
            (lost if pair[0]["reliable"] else gained).append(pair)
    return found


def differences(first: Json, second: Json) -> list[tuple[str, list[tuple[str, str, str]], int]]:
    """What the two were made of and how, where they differ: (title, rows of name, A and B, how many are equal)."""
    tables = []
    left, right = _tables(first), _tables(second)
    for title in left | right:
        here, there = left.get(title, {}), right.get(title, {})
        pairs = [(name, here.get(name, NO_VALUE), there.get(name, NO_VALUE)) for name in here | there]
        rows = [row for row in pairs if row[1] != row[2]]
        tables.append((title, rows, len(pairs) - len(rows)))
    return tables


def _tables(run: Json) -> dict[str, dict[str, str]]:
    """Settings, location and provenance of one release, each as flat names and texts."""
    release, manifest = run.get("release") or {}, run.get("manifest") or {}
    return {
        "Where it was written": dict(facts.flatten(release.get("location") or {})),
        "Settings": dict(facts.flatten(manifest.get("config") or {})),
        **{title: dict(rows) for title, rows in provenance(run)},
    }
