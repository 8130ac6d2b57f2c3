"""The release mode as a step: incremental from the champion's patch where that can be, else a rebuild."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from factpatch.errors import RefusedError
from factpatch.release.mode import decide_mode
from factpatch.release.plan import ReleasePlan
from integrations.mlflow_registry import fetch_patch


def choose_release_mode(plan: ReleasePlan, refused: Sequence[str] = ()) -> ReleasePlan:
    """The plan with its mode. Leaves the decision, and the patch to begin with, in `start/` of the output folder, and
    prints it with its reason. `refused` are gates that have just refused an increment.

    InputError where `edits.mode` asks for what cannot be, RefusedError where there is neither a fact nor a champion.
    """
    settings, champion = plan.settings, plan.champion
    if not plan.edits and champion is None:
        raise RefusedError(f"no fact is in force in '{settings.edits.path}', and there is no champion to take one from")
    fetch = partial(fetch_patch, settings.registry)
    mode = decide_mode(Path(plan.output), settings, plan.edits, champion, fetch, plan.withdrawn_prompts, refused)
    print(f"release: {mode}", flush=True)
    return replace(plan, mode=mode)
