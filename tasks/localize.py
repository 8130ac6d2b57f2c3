"""The localize step: choose where to write, or take the location that the settings name."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow, task

from factpatch.edits.accepted import accepted_to_write
from factpatch.edits.request import EditRequest
from factpatch.errors import InputError
from factpatch.files import write_json
from factpatch.progress import show_progress
from factpatch.settings.config import Settings

if TYPE_CHECKING:
    from factpatch.models.loading import LoadedModel


@task(name="localize", timeout_seconds=24 * 3600)
def localize(output: str, settings: Settings) -> str:
    """Write `localize.json`: the location with its parameters, every place tried, and the reason, and a picture of the
    places, `localize.png`. `localization.workers` processes share a grid."""

    from factpatch.localization.heat_maps import draw
    from factpatch.preflight.estimate import check_model_room
    from factpatch.preflight.machine import available
    from factpatch.preflight.shared_model import base_model, within_memory

    start = time.perf_counter()
    folder = Path(output)
    edits = accepted_to_write(folder)
    if settings.localization.location is None and settings.model.placement != "stream":
        within_memory(lambda: check_model_room(settings.model, available(settings.model.device, folder, None)))
    with base_model(settings.model) as loaded:
        value = _find_location(loaded, edits, settings, folder)
    draw(value, folder)
    return str(write_json(folder / "localize.json", {**value, "seconds": round(time.perf_counter() - start, 3)}))


def _find_location(loaded: LoadedModel, edits: list[EditRequest], settings: Settings, folder: Path) -> dict[str, Any]:
    """The champion's location where the release begins with its patch, else the settings', else one that is found."""
    from factpatch.localization.record import record
    from factpatch.localization.search import localize as search
    from factpatch.models.locations import locate
    from factpatch.release.mode import read_start

    begun, fixed = read_start(folder, edits, settings), settings.localization.location
    if begun.patch is not None:
        place = locate(loaded.model, begun.patch.manifest["location"]["name"])
        return record("champion", place, f"that of version {begun.mode.version}, whose patch the release begins with")
    if fixed is not None:
        return record("fixed", locate(loaded.model, fixed), "named in the settings")
    with show_progress("localize") as report:
        value = search(loaded, edits, settings, report, _spread(settings))
    for note in value["notes"]:
        print(f"localize: {note}", file=sys.stderr)
    return value


@task(name="try places")
def try_places(folder: str, names: list[str], settings: Settings) -> str:
    """Give each of the places a whole run, and leave what it showed in the folder of the trials.

    It is what a worker's process does, so it takes that process' share of the machine's threads.
    """
    import torch

    from factpatch.localization.worker import run_trials

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // settings.localization.workers))
    run_trials(Path(folder), names, settings)
    return folder


@flow(name="localization grid", validate_parameters=False)
def try_all(folder: str, names: list[str], settings: Settings) -> None:
    """The places of a grid, a layer a task: they share what lies below."""
    layers: dict[str, list[str]] = {}
    for name in names:
        layers.setdefault(name.partition(":")[0], []).append(name)
    for future in [try_places.submit(folder, of_layer, settings) for of_layer in layers.values()]:
        future.result()


def _spread(settings: Settings) -> Callable[[Path, Sequence[str]], None] | None:
    """How places are tried by several processes; None for one."""
    workers = settings.localization.workers
    if workers == 1:
        return None
    try:
        from prefect_dask import DaskTaskRunner
    except ImportError as error:
        raise InputError(
            f"localization.workers is {workers}, which needs prefect-dask: pip install 'factpatch[release]', or set 1"
        ) from error

    def spread(folder: Path, names: Sequence[str]) -> None:
        cluster = {"n_workers": workers, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
        runner: Any = DaskTaskRunner(cluster_kwargs=cluster)
        try_all.with_options(task_runner=runner)(str(folder.resolve()), list(names), settings)

    return spread
