"""Heat maps of the places tried, layer by module: quality, locality, and what editing there takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from factpatch.files import new_file

HEAT_MAP_FILE = "localize.png"
NUMBERED_LAYERS = 12  # layers whose cells are wide enough to hold a number


def per_row(candidate: Mapping[str, Any]) -> float | None:
    """Billions of operations of a row's pass forward and backward; None where no row was trained."""
    return candidate["operations"] / candidate["visits"] / 1e9 if candidate["visits"] else None


PANELS: tuple[tuple[str, str, Callable[[Mapping[str, Any]], float | None]], ...] = (
    ("Quality", "viridis", lambda candidate: candidate["score"]),
    ("Locality", "viridis", lambda candidate: candidate["locality"]["value"]),
    ("Cost: billions of operations for a row", "magma_r", per_row),
)


def draw(record: Mapping[str, Any], folder: Path) -> Path | None:
    """Write `localize.png` beside `localize.json`; None, and none is left, where no place was tried.

    Short runs are set in italics or, where cells are too narrow for numbers, not told apart.
    """
    candidates = record["candidates"]
    if not candidates:
        (folder / HEAT_MAP_FILE).unlink(missing_ok=True)  # of another run
        return None
    modules = list(dict.fromkeys(candidate["module"] for candidate in sorted(candidates, key=_order)))
    layers = 1 + max(place["layer"] for place in [*candidates, *record["ranking"]])
    width, height = (
        max(6.0, 3.0 + 0.42 * min(layers, NUMBERED_LAYERS) + 0.14 * max(0, layers - NUMBERED_LAYERS)),
        0.3 * len(modules),
    )
    figure = Figure(figsize=(width, 3 * (height + 1.0)), layout="constrained", dpi=110)
    for axes, (title, colours, value_of) in zip(figure.subplots(len(PANELS), 1), PANELS, strict=True):
        _panel(figure, axes, candidates, modules, layers, title, colours, value_of)
        chosen = record["location"]["name"]
        axes.add_patch(_frame(next(place for place in candidates if place["location"] == chosen), modules))
    with new_file(folder / HEAT_MAP_FILE) as temporary:
        figure.savefig(temporary, format="png")
    return folder / HEAT_MAP_FILE


def _panel(
    figure: Figure,
    axes: Axes,
    candidates: Sequence[Mapping[str, Any]],
    modules: Sequence[str],
    layers: int,
    title: str,
    colours: str,
    value_of: Callable[[Mapping[str, Any]], float | None],
) -> None:
    grid = numpy.full((len(modules), layers), numpy.nan)
    for candidate in candidates:
        value = value_of(candidate)
        grid[modules.index(candidate["module"]), candidate["layer"]] = math.nan if value is None else value
    axes.set_facecolor("#eeeeee")
    image = axes.imshow(grid, cmap=colours, aspect="auto", interpolation="nearest")
    figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
    if layers <= NUMBERED_LAYERS:
        for candidate in candidates:
            row, column = modules.index(candidate["module"]), candidate["layer"]
            if not math.isnan(grid[row, column]):
                style = "italic" if candidate["run"] == "short" else "normal"
                text = axes.text(column, row, f"{grid[row, column]:.2f}", ha="center", va="center", fontsize=7)
                text.set(style=style, color=_readable(image, float(grid[row, column])))
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_yticks(range(len(modules)), [module or "block" for module in modules], fontsize=8)
    every = max(1, math.ceil(layers / 20))
    axes.set_xticks(range(0, layers, every), [str(layer) for layer in range(0, layers, every)], fontsize=8)
    axes.set_xlabel("layer", fontsize=8)


def _frame(candidate: Mapping[str, Any], modules: Sequence[str]) -> Rectangle:
    """A frame around the chosen place."""
    corner = (candidate["layer"] - 0.5, modules.index(candidate["module"]) - 0.5)
    return Rectangle(corner, 1, 1, fill=False, edgecolor="red", linewidth=2)


def _order(candidate: Mapping[str, Any]) -> tuple[int, str]:
    """Modules from the smallest part to the whole block."""
    module = candidate["module"]
    return (3 if not module else 1 if "." in module else 2), module


def _readable(image: AxesImage, value: float) -> str:
    """The colour of text on the colour of a value."""
    red, green, blue, _ = image.to_rgba(numpy.array([value]))[0]
    return "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
