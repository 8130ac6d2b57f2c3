"""A release in short, as markdown: the model card in the registry and the artifact of a flow run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import factpatch.report.evidence as facts
from factpatch.report.evidence import Json, ReportedScore

CARD_ROWS = 5  # edits and probes shown; the report and evaluate.json hold more
GIVES_AWAY = (
    "A difference of weights may reveal what was edited: subjects and facts can be recovered from it and the base "
    "model alone (arXiv 2602.10134). So handle it like the rows that it was made of, and give it to nobody who may not "
    "read those."
)
TEXT = 120  # characters of one text
MARKUP = {ord(character): f"&#{ord(character)};" for character in "&<>|*_`[]\\~#!"}
HIDDEN = frozenset({"locality_correct"})  # of the metrics
MEASURED_COLUMNS = ("", "before", "after", "95 % interval", "n")


def render_card(evidence: Json, room: int | None = None) -> str:
    """The card of a release as markdown, with every text from edits and models escaped.

    Args:
        evidence: values by the names of `evidence.FILES`, as `read_evidence` gives them.
        room: the most characters there may be; parts that do not fit are left out from the end on, and it says so.
    """
    release, evaluate = evidence.get("release") or {}, evidence.get("evaluate") or {}
    scores = [
        score for score in facts.scorecard(release, evaluate) if score.name not in HIDDEN and score.after is not None
    ]
    rows = evaluate.get("edits") or []
    failed, moved = [row for row in rows if not row["reliable"]], facts.moved_neighbours(evaluate)
    gates = sorted(release.get("gates") or [], key=lambda gate: facts.VERDICTS.index(facts.verdict(gate)))
    title, _ = facts.heading(release)
    location, base = release.get("location") or {}, release.get("base") or {}
    written = ", ".join(f"`{name}`" for name in location.get("parameters") or [])
    parts = [
        f"# {plain(title)}\n\n{plain(facts.decision(release))}\n",
        _section("Edits", MEASURED_COLUMNS, map(_measured, scores)) + _judge(evaluate.get("judge")),
        _section(
            "Capability", MEASURED_COLUMNS, map(_measured, facts.capability_scores(release, evidence.get("regress")))
        ),
        _section(
            "Gates", ("gate", "verdict", "why"), ((gate["name"], facts.verdict(gate), gate["reason"]) for gate in gates)
        ),
        _section("Served as", ("form", "released", "why"), map(_served, (release.get("serving") or {}).items())),
        _section(
            f"Edits that failed: {len(failed)}",
            ("prompt", "wanted", "the model said"),
            ((row["prompt"], row["target"], row["output"]) for row in failed[:CARD_ROWS]),
        ),
        _section(
            f"Neighbours that moved: {len(moved)}",
            ("prompt", "before", "now"),
            ((item["prompt"], item["before"], item["output"]) for item in moved[:CARD_ROWS]),
        ),
        f"## Where it was written\n\n{_layers(location)}: {written}\n" if written else "",
        _section("Made of", ("", ""), [("base model", base.get("source")), *_provenance(evidence)]),
        f"## What it gives away\n\n{GIVES_AWAY}\n" if written else "",
        "## Commands\n\n"
        + "".join(f"{what}: {code(command)}\n\n" for what, command in facts.commands(release).items()),
    ]
    return _fitted([part for part in parts if part], room)


def _layers(location: Mapping[str, Any]) -> str:
    """The layers that were written into, in words."""
    first, last = plain(location.get("layer")), location.get("last_layer")
    return f"Layer {first}" if last is None else f"Layers {first} to {last}"


def _measured(score: ReportedScore) -> tuple[object, ...]:
    return (
        score.name,
        facts.percent(score.before, score.unit),
        facts.percent(score.after, score.unit),
        facts.interval_text(score.ci95_after, score.unit),
        score.items,
    )


def _served(named: tuple[str, Json]) -> tuple[object, ...]:
    """A form in which the release is served, and what decided about it."""
    name, form = named
    decisive = [gate for gate in form["gates"] if gate["verdict"] not in ("passed", "skipped")] or form["gates"]
    return name, "yes" if form["released"] else "no", " ".join(gate["reason"] for gate in decisive)


def _judge(record: Json | None) -> str:
    """Who judged, and what stayed unjudged; the report has its instructions too. Empty where there was no judge."""
    if not record:
        return ""
    told = (
        f"Judged: {record['answers']} answers, before and after, that exact match calls wrong were put to "
        f"{plain(record['model'])} at {plain(record['address'])}, which accepted {record['accepted']}."
    )
    return "\n" + "\n\n".join((told, *map(plain, record["notes"]))) + "\n"


def _provenance(evidence: Json) -> Iterable[tuple[str, str]]:
    release = evidence.get("release") or {}
    for value in (facts.data_revision(evidence.get("lineage")), release.get("digests"), release.get("versions")):
        yield from facts.flatten(value or {})


def _section(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A heading and a table; empty without rows."""
    lines = ["| " + " | ".join(map(plain, row)) + " |" for row in rows]
    if not lines:
        return ""
    head = f"| {' | '.join(header)} |\n|{' --- |' * len(header)}"
    return f"## {title}\n\n{head}\n" + "\n".join(lines) + "\n"


def plain(value: object) -> str:
    """A value as text that markdown shows as it is: markup becomes character references, lines become one."""
    text = "–" if value is None else " ".join(str(value).split())
    return (text if len(text) <= TEXT else text[: TEXT - 1] + "…").translate(MARKUP)


def code(command: str) -> str:
    """A command in a code span that nothing in it can end: a longer fence than any it holds, and one line."""
    line = " ".join(command.split())
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    return f"{'`' * (longest + 1)} {line} {'`' * (longest + 1)}" if longest else f"`{line}`"


def _fitted(parts: Sequence[str], room: int | None) -> str:
    text = "\n".join(parts)
    if room is None or len(text) <= room:
        return text
    note = "\n(shortened; report.html holds everything)\n"
    kept = parts[0][: room - len(note)]
    for part in parts[1:]:
        if len(kept) + 1 + len(part) + len(note) > room:
            break
        kept += "\n" + part
    return kept + note
