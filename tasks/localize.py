"""The localize step: choose where to write, or take the location that the settings name."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task

from factpatch.config import Settings
from factpatch.edits.accepted import read_accepted
from factpatch.files import write_json
from factpatch.progress import show_progress

if TYPE_CHECKING:
    from factpatch.localization import Cell
    from factpatch.structure import Location


@task(name="localize", timeout_seconds=24 * 3600)
def localize(output: str, settings: Settings) -> str:
    """Write `localize.json`: the location with its parameters, every candidate tried, and the reason."""

    from factpatch.localization import Choice
    from factpatch.localization import localize as search
    from factpatch.machine import available
    from factpatch.models import load_model
    from factpatch.preflight import check_model
    from factpatch.structure import locate

    start = time.perf_counter()
    folder = Path(output)
    edits = read_accepted(folder)
    check_model(settings.model, available(settings.model.device, folder, None))
    loaded = load_model(settings.model)
    fixed = settings.localization.location
    if fixed is not None:
        choice = Choice(locate(loaded.model, fixed), (), "named in the settings")
    else:
        with show_progress("localize") as report:
            choice = search(loaded, edits, settings, report)
    location, cells = choice.location, choice.cells
    value = {
        "schema": 1,
        "location": {"name": location.name, **_location(location)},
        "reason": choice.reason,
        "method": "fixed" if fixed is not None else settings.localization.method,
        "sample": min(settings.localization.sample, len(edits)) if cells else 0,
        "candidates": [_cell(cell) for cell in cells],
        "seconds": round(time.perf_counter() - start, 3),
    }
    return str(write_json(folder / "localize.json", value))


def _location(location: Location) -> dict[str, Any]:
    return {"layer": location.layer, "module": location.module, "parameters": list(location.parameters)}


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "location": cell.location.name,
        "layer": cell.location.layer,
        "module": cell.location.module,
        "score": round(cell.score, 6),
        "margin": round(cell.margin, 6),
        **cell.metrics,
        "epochs": cell.epochs,
        "seconds": cell.seconds,
    }
