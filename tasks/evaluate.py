"""The evaluate step: what the accepted edits changed, by free generation before and after the patch."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from prefect import task

from factpatch.edits.accepted import read_accepted
from factpatch.files import output_folder, write_json
from factpatch.progress import show_progress
from factpatch.settings.config import Settings


@task(name="evaluate", timeout_seconds=12 * 3600)
def evaluate(output: str, settings: Settings, patch: str | None = None) -> str:
    """Write `evaluate.json` into the output folder and return its path. Not retried: a failure would repeat.

    `patch` is a patch folder, by default `<output>/patch` if it is there. With a patch the model is measured before
    and after it; without one, as it is, and locality is null. A model with a chat template is measured in both forms.
    The canaries and the judge that the settings name are asked too, and with a patch all in each of `serving.formats`.
    """
    from factpatch.delivery.formats import measure_formats
    from factpatch.evaluation.before_after import evaluate as measure
    from factpatch.patches.patch import read_patch
    from factpatch.preflight.shared_model import base_model
    from factpatch.preflight.streaming import tell_evaluation
    from factpatch.release.record import digest_patch

    start = time.perf_counter()
    folder = output_folder(output)
    edits = read_accepted(folder)
    found = folder / "patch"
    chosen = patch or (found if found.exists() else None)
    with base_model(settings.model) as loaded, show_progress("evaluate") as report:
        if told := tell_evaluation(loaded, edits, settings):
            print(told, file=sys.stderr)
        found_patch = read_patch(chosen) if chosen else None
        value = measure(loaded, edits, settings, found_patch, report)
        if found_patch is not None and settings.serving.formats:
            value["formats"] = measure_formats(loaded, edits, settings, found_patch, value, report)
    value["patch"] = digest_patch(Path(chosen)) if chosen else None
    value["seconds"] = round(time.perf_counter() - start, 3)
    return str(write_json(folder / "evaluate.json", value))
