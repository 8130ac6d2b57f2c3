"""A part of a grid, tried by a process of its own: it is told paths, and what it finds stays in files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from factpatch.errors import InputError
from factpatch.localization.store import TrialStore, base_digest
from factpatch.localization.trials import SharedTrunk, run_trial
from factpatch.models.loading import load_model
from factpatch.models.locations import locate
from factpatch.settings.config import Settings


def run_trials(folder: Path, names: Sequence[str], settings: Settings) -> None:
    """Give whole runs to the named places that have none yet in a folder of trials.

    InputError if the model is not the one that the trials are of.
    """
    trials, loaded = TrialStore(folder), load_model(settings.model)
    base, trial_set = trials.trial_set()
    if base_digest(loaded) != base:
        raise InputError(f"model '{settings.model.path}' has changed since the grid began; run localize again")
    missing = [locate(loaded.model, name) for name in names if trials.read(loaded, name, True) is None]
    trunk = SharedTrunk(loaded, trial_set, settings)
    for number, location in enumerate(missing):
        trunk.prepare(missing[number:])
        trials.write(run_trial(trunk, location, settings, whole=True))
