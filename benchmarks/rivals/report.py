"""The lines of a file of results as tables in Markdown and one picture, put into a page between two marks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Line = Mapping[str, Any]

BEGIN, END = "<!-- tables of benchmarks.rivals -->", "<!-- end of tables -->"
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


def write_report(results: Path, page: Path) -> None:
    """Put the tables of a file of results between the page's marks, and the picture beside the page."""
    from benchmarks.rivals.bench import read_lines

    lines = [line for line in read_lines(results) if line["kind"] == "result"]
    picture = page.with_suffix(".svg")
    draw(lines, picture)
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    shown = f"![generalization against locality]({picture.name})"
    page.write_text(f"{before}{BEGIN}\n{shown}\n\n{tables(lines)}\n{END}{after}", encoding="utf-8")


def tables(lines: Sequence[Line]) -> str:
    """Two tables for each model, set and number of edits."""
    parts = []
    for (model, name, edits), group in grouped(lines).items():
        parts += [f"### {model}, {edits} rows of {name}", "", _answers(group), "", _carried(group), ""]
    return "\n".join(parts)


def grouped(lines: Iterable[Line]) -> dict[tuple[str, str, int], list[Line]]:
    """The latest line of every rival, by model, set and number of edits."""
    groups: dict[tuple[str, str, int], dict[str, Line]] = {}
    for line in lines:
        groups.setdefault((line["model"], line["set"], line["edits"]), {})[line["rival"]] = line
    return {key: list(group.values()) for key, group in groups.items()}


def _answers(group: Sequence[Line]) -> str:
    """What the edits do, and what else moves."""
    shown = [name for name in ANSWERS if any(_value(line, name) is not None for line in group)]
    heads = [f"{ANSWERS[name]} (n {_items(group, name)})" for name in shown]
    rows = [[line["title"], *(cell(line, name) for name in shown)] for line in group if "measures" in line]
    rows += [[line["title"], line["refused"], *[""] * (len(shown) - 1)] for line in group if "refused" in line]
    return _markdown(["way", *heads], rows)


def _carried(group: Sequence[Line]) -> str:
    """How far the edits carry, and what they cost."""
    pairs = {name: (f"{name}_reliability", f"{name}_generalization") for name in FORMS}
    forms = {name: pair for name, pair in pairs.items() if any(_value(line, pair[0]) is not None for line in group)}
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


def draw(lines: Sequence[Line], path: Path) -> None:
    """Generalization against locality, a panel for each model, set and number of edits; a point a rival, with what it
    makes of the perplexity of text."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "rivals"
    from matplotlib import pyplot

    groups = grouped([line for line in lines if "measures" in line])
    figure, panels = pyplot.subplots(len(groups), figsize=(8, 5 * len(groups)), squeeze=False)
    for axes, ((model, name, edits), group) in zip(panels[:, 0], groups.items(), strict=True):
        for number, line in enumerate(group):
            (x, dx), (y, dy) = (_point(line, measure) for measure in ("locality_content", "generalization"))
            text = _value(line, "perplexity")
            label = line["title"] + (f", text x {text:.2f}" if text else "")
            marker = "os^Dv"[number // 10]  # ten colours, then another sign
            axes.errorbar([x], [y], xerr=dx, yerr=dy, marker=marker, capsize=2, linestyle="none", label=label)
        axes.set(
            xlabel="locality by content, %",
            ylabel="generalization, %",
            xlim=(-3, 103),
            ylim=(-3, 103),
            title=f"{model}, {edits} rows of {name}",
        )
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    pyplot.close(figure)


def _point(line: Line, name: str) -> tuple[float, list[list[float]]]:
    """A measure in percent, with how far its interval reaches below and above; nowhere where there is no value."""
    found = line["measures"].get(name)
    if not found or found["value"] is None:
        return math.nan, [[0.0], [0.0]]
    value, (low, high) = found["value"], found["ci95"]
    return 100 * value, [[100 * max(0.0, value - low)], [100 * max(0.0, high - value)]]


def _value(line: Line, name: str) -> float | None:
    found = line.get("measures", {}).get(name)
    return found["value"] if found else None


def _items(group: Sequence[Line], name: str) -> str:
    """How many items are behind a measure; of several numbers the least and the most."""
    counts = {line["measures"][name]["n"] for line in group if _value(line, name) is not None}
    return "-".join(map(str, sorted({min(counts), max(counts)}))) if counts else "0"


def _told(choice: Mapping[str, Any]) -> str:
    """The chosen settings, without the section that all are of."""
    return ", ".join(f"{name.removeprefix('training.')} {value}" for name, value in choice.items()) or "-"


def _markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows))
