"""The preflight of an edit run, which also chooses where the weights lie: in memory if the run fits there."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from factpatch.edits.request import EditRequest
from factpatch.errors import RefusedError
from factpatch.preflight.estimate import Estimate, check_room, describe_estimate, estimate
from factpatch.preflight.machine import available
from factpatch.preflight.shared_model import within_memory
from factpatch.settings.config import AUTO, Placement, Settings


def preflight(settings: Settings, edits: list[EditRequest], location: str, folder: Path) -> tuple[Estimate, Settings]:
    """What an edit run will take, told to whoever watches, and the settings with the placement that fits; raises where
    none does."""

    def check(placement: Placement) -> tuple[Estimate, Settings]:
        placed = replace(settings, model=replace(settings.model, placement=placement))
        needed = estimate(placed, edits, location)
        free = available(settings.model.device, folder, settings.trunk.folder)
        print(describe_estimate(needed, free), file=sys.stderr)
        check_room(needed, free, settings.trunk)
        return needed, placed

    if settings.model.placement != AUTO:
        return within_memory(lambda: check(settings.model.placement))
    try:
        return within_memory(lambda: check("memory"))
    except RefusedError as error:
        print(f"{error}; so model.placement is 'stream'", file=sys.stderr)
    return within_memory(lambda: check("stream"))
