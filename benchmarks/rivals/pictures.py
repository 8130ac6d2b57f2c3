"""Pictures of results: what rivals give against what they keep, and what the layer of an edit makes of it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rivals.bench import Line, value

Groups = Mapping[str, Sequence[Line]]

SHOWN = ("reliability", "generalization", "perplexity")  # by layer


def draw_rivals(groups: Groups, path: Path) -> None:
    """Generalization against locality by content, a panel a group and a point a rival, with the perplexity of text."""
    figure, panels = _panels(len(groups), 1)
    for (axes,), (title, group) in zip(panels, groups.items(), strict=True):
        for number, line in enumerate(line for line in group if "measures" in line):
            (x, dx), (y, dy) = (_point(line, name) for name in ("locality_content", "generalization"))
            text = value(line, "perplexity")
            label = line["title"] + (f", text x {text:.2f}" if text else "")
            marker = "os^"[number // 10]  # ten colours, then another sign
            axes.errorbar([x], [y], xerr=dx, yerr=dy, marker=marker, capsize=2, linestyle="none", label=label)
        axes.set(xlabel="locality by content, %", ylabel="generalization, %", title=title)
        axes.set(xlim=(-3, 103), ylim=(-3, 103))
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
    _save(figure, path)


def draw_findings(groups: Groups, path: Path) -> None:
    """Each measure of SHOWN by the layer of the edit, a line a module and a row of panels a group."""
    figure, panels = _panels(len(groups), len(SHOWN))
    for row, (title, group) in zip(panels, groups.items(), strict=True):
        places: dict[str, list[tuple[int, Line]]] = defaultdict(list)
        for line in group:
            kind, _, rest = line["rival"].partition("-")
            if kind == "place" and "measures" in line:
                layer, _, module = rest.partition("-")
                places[module].append((int(layer), line))
        for axes, name in zip(row, SHOWN, strict=True):
            for module, found in places.items():
                points = sorted((layer, value(line, name) or math.nan) for layer, line in found)
                axes.plot(*zip(*points, strict=True), marker="o", label=module)
            axes.set(xlabel="layer", ylabel=name, title=title if axes is row[0] else "")
        row[-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
    _save(figure, path)


def _panels(rows: int, columns: int) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "rivals"
    from matplotlib import pyplot

    width = 8 if columns == 1 else 4.5 * columns
    return pyplot.subplots(rows, columns, figsize=(width, 5 * rows), squeeze=False)


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    pyplot.close(figure)


def _point(line: Line, name: str) -> tuple[float, list[list[float]]]:
    """A measure in percent, with how far its interval reaches below and above; nowhere where there is no value."""
    found = line["measures"].get(name)
    if not found or found["value"] is None:
        return math.nan, [[0.0], [0.0]]
    own, (low, high) = found["value"], found["ci95"]
    return 100 * own, [[100 * max(0.0, own - low)], [100 * max(0.0, high - own)]]
