"""Whose champion a release would replace: its own ledger's, or another project's under the same name."""

from __future__ import annotations

from factpatch.edits.folder import fact
from factpatch.edits.origin import continues
from factpatch.errors import InputError
from factpatch.release.plan import ReleasePlan
from flows.console import quoted


def check_ledger(plan: ReleasePlan, adopt: bool = False) -> None:
    """InputError, naming what would be withdrawn, if the champion comes from another ledger and holds facts that the
    present one has never known; with `adopt` that is printed instead. Without a champion the newest version counts.

    A ledger keeps every row, so one that was moved or checked out elsewhere still knows what it once said. Versions
    that do not tell their ledger are anybody's.
    """
    settings, held = plan.settings, plan.champion or plan.newest
    if held is None or held.origin is None or continues(settings.edits.path, held.origin):
        return
    known = {fact(entry) for entry in plan.ledger if entry.state != "revert"}
    unknown = sorted(held.facts - known)
    if not unknown:
        return
    prompt, target = unknown[0]
    which = f"version {held.version} of '{settings.registry.name}'"
    told = f"{len(unknown)} of its {len(held.facts)} facts, such as {quoted(prompt)} -> {quoted(target)}"
    if adopt:
        print(f"release: adopts {which} from the ledger '{held.origin.place}', and withdraws {told}", flush=True)
        return
    raise InputError(
        f"{which} was released from another ledger, '{held.origin.place}', and '{settings.edits.path}' has never known "
        f"{told}; name this project's own model with registry.name, or withdraw them with 'factpatch run --adopt'"
    )
