"""The lines of a file of results as tables in Markdown and a picture, put into a page between two marks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rivals.bench import Line, read_lines, value
from benchmarks.rivals.pictures import draw_findings, draw_rivals
from benchmarks.rivals.roster import ROSTER

MARKS = ("<!-- {} -->", "<!-- end of {} -->")  # around what is written, with its name: rivals or findings
ANSWERS = {  # columns of the first table: what the edits do, and what else moves
    "reliability": "reliability",
    "generalization": "generalization",
    "locality": "locality, form",
    "locality_content": "locality, content",
    "neighbours_content": "neighbours, content",
    "portability": "portability",
    "old_value": "old value",
    "perplexity": "perplexity x",
    "capability": "capability",
}
FORMS = {  # of the second: how far they carry, and what they cost
    "question": "question wrapper",
    "chat": "chat form",
    "paragraph": "in a paragraph",
}
FACTORS = frozenset({"perplexity"})  # measures that are no shares


def write_report(results: Path, page: Path, name: str) -> None:
    """Put the tables of a file of results between the page's marks of this name, and the picture beside the page."""
    lines = [line for line in read_lines(results) if line["kind"] == "result"]
    picture = page.with_name(f"{name}.svg")
    (draw_findings if name == "findings" else draw_rivals)(grouped(lines), picture)
    begin, end = (mark.format(name) for mark in MARKS)
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}\n![{name}]({picture.name})\n\n{tables(lines)}\n{end}{after}", encoding="utf-8")


def tables(lines: Iterable[Line]) -> str:
    """Two tables for each group of lines."""
    parts = []
    for title, group in grouped(lines).items():
        parts += [f"### {title}", "", _answers(group), "", _carried(group), ""]
    return "\n".join(parts)


def grouped(lines: Iterable[Line]) -> dict[str, list[Line]]:
    """The latest line of every rival, in the roster's order, by model, number of edits, set and seed."""
    groups: dict[str, dict[str, Line]] = {}
    for line in lines:
        title = f"{line['model']}, {line['edits']} rows of {line['set']}, seed {line['seed']}"
        groups.setdefault(title, {})[line["rival"]] = line
    order = {rival.name: place for place, rival in enumerate(ROSTER)}
    return {
        title: sorted(group.values(), key=lambda line: order.get(line["rival"], len(order)))
        for title, group in groups.items()
    }


def _answers(group: Sequence[Line]) -> str:
    """What the edits do, and what else moves."""
    shown = [name for name in ANSWERS if any(value(line, name) is not None for line in group)]
    heads = [f"{ANSWERS[name]} (n {_items(group, name)})" for name in shown]
    rows = [[line["title"], *(cell(line, name) for name in shown)] for line in group if "measures" in line]
    rows += [[line["title"], line["refused"], *[""] * (len(shown) - 1)] for line in group if "refused" in line]
    return _markdown(["way", *heads], rows)


def _carried(group: Sequence[Line]) -> str:
    """How far the edits carry, and what they cost."""
    pairs = {name: (f"{name}_reliability", f"{name}_generalization") for name in FORMS}
    forms = {name: pair for name, pair in pairs.items() if any(value(line, pair[0]) is not None for line in group)}
    heads = [f"{FORMS[name]} (n {_items(group, pair[0])}, {_items(group, pair[1])})" for name, pair in forms.items()]
    heads += [f"as Q4_1 (n {_items(group, 'q4_reliability')})", "seconds", "memory, MB", "shipped, MB"]
    rows = [
        [
            line["title"],
            line.get("location", "-"),
            _told(line["choice"]),
            *(" / ".join(cell(line, name) for name in pair) for pair in forms.values()),
            cell(line, "q4_reliability"),
            f"{line['seconds']:.0f}" if "seconds" in line else "-",
            *(f"{line[name] / 1e6:.1f}" if name in line else "-" for name in ("memory", "bytes")),
        ]
        for line in group
        if "measures" in line
    ]
    return _markdown(["way", "place", "chosen", *heads], rows)


def cell(line: Line, name: str) -> str:
    """A measure of a line with its 95 % interval, in percent where it is a share."""
    found = line["measures"].get(name)
    if not found or found["value"] is None:
        return "-"
    scale, form = (1, ".2f") if name in FACTORS else (100, ".0f")
    interval = "-".join(f"{scale * bound:{form}}" for bound in found["ci95"]) if found["ci95"] else ""
    return f"{scale * found['value']:{form}}" + (f" ({interval})" if interval else "")


def _items(group: Sequence[Line], name: str) -> str:
    """How many items are behind a measure; of several numbers the least and the most."""
    counts = {line["measures"][name]["n"] for line in group if value(line, name) is not None}
    return "-".join(map(str, sorted({min(counts), max(counts)}))) if counts else "0"


def _told(choice: Mapping[str, Any]) -> str:
    """The chosen settings, without the section that all are of."""
    return ", ".join(f"{name.removeprefix('training.')} {value}" for name, value in choice.items()) or "-"


def _markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows))
