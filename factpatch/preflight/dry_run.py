"""What an edit run would take, told without running it: a table of numbers for each placement of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

from factpatch.edits.request import EditRequest
from factpatch.files import GIB
from factpatch.preflight.estimate import Estimate, estimate
from factpatch.preflight.rates import DeviceRates
from factpatch.settings.config import AUTO, Placement, Settings


def dry_run(
    settings: Settings, edits: Sequence[EditRequest], location: str, rates: DeviceRates | None
) -> list[Estimate]:
    """The estimate for the settings' placement; for `auto`, for each that there is."""
    asked = [settings.model.placement]
    if settings.model.placement == AUTO:
        asked = [placement for placement in get_args(Placement) if placement != AUTO]
    return [
        estimate(replace(settings, model=replace(settings.model, placement=placement)), edits, location, rates)
        for placement in asked
    ]


def describe_dry_run(needed: Estimate, edits: int, device: str) -> list[str]:
    """The numbers for people, one a line."""
    where = "memory" if device == "cpu" else f"memory of {device}"
    lines = [
        f"{edits} edits at {needed.location}, weights in {_placement(needed)}:",
        f"  {where:<20} {_gb(needed.memory_bytes)}",
        f"  {'disk':<20} {_gb(needed.disk_bytes)} (patch {_gb(needed.patch_bytes)}, trunk {_gb(needed.cache_bytes)})",
        f"  {'read of the weights':<20} {_gb(needed.read_bytes)}",
        f"  {'operations':<20} {needed.operations:.3g}",
        f"  {'seconds':<20} {needed.seconds:.0f}: trunk {needed.seconds_trunk:.0f}, {needed.epochs} epochs of "
        f"{needed.seconds_epoch:.1f} at most, rest {needed.seconds_rest:.0f}",
    ]
    if device != "cpu":
        lines.insert(2, f"  {'host memory':<20} {_gb(needed.host_bytes)}")
    return lines


def _placement(needed: Estimate) -> str:
    return "memory" if needed.placement == "memory" else "their files (stream)"


def _gb(size: int) -> str:
    return f"{size / GIB:.2f} GB"
