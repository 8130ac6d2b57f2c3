"""The release mode as a step: incremental from the champion's patch where that can be, else a rebuild."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from factpatch.edits.accepted import read_accepted
from factpatch.edits.folder import fact, read_ledger
from factpatch.errors import RefusedError
from factpatch.release.mode import ReleaseMode, decide_mode
from factpatch.settings.config import Settings
from tasks.tools.mlflow_registry import fetch_patch, read_champion


def choose_release_mode(output: str, settings: Settings, refused: Sequence[str] = ()) -> ReleaseMode:
    """Leave the decision, and the patch to begin with, in `start/` of the output folder, and print it with its reason.
    `refused` are gates that have just refused an increment.

    InputError where `edits.mode` asks for what cannot be, RefusedError where there is neither a fact nor a champion.
    """
    registry = settings.registry
    fetch = partial(fetch_patch, registry)
    edits, entries = read_accepted(output), read_ledger(settings.edits.path, columns=settings.edits.columns)
    gone = {entry.row.values["prompt"] for entry in entries if entry.state in ("reverted", "expired")}
    withdrawn = sorted(gone - {fact(entry)[0] for entry in entries if entry.state == "active"})
    champion = read_champion(registry)
    if not edits and champion is None:
        raise RefusedError(f"no fact is in force in '{settings.edits.path}', and there is no champion to take one from")
    mode = decide_mode(Path(output), settings, edits, champion, fetch, withdrawn, refused)
    print(f"release: {mode}", flush=True)
    return mode
