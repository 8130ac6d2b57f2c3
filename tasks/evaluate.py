"""The evaluate step: what the accepted edits changed, by free generation before and after the patch."""

from __future__ import annotations

import time
from pathlib import Path

from prefect import task

from factpatch.config import Settings
from factpatch.edits.accepted import read_accepted
from factpatch.files import output_folder, write_json
from factpatch.progress import show_progress


@task(name="evaluate", timeout_seconds=12 * 3600)
def evaluate(output: str, settings: Settings, patch: str | None = None) -> str:
    """Write `evaluate.json` into the output folder and return its path. Not retried: a failure would repeat.

    `patch` is a patch folder, by default `<output>/patch` if it is there. With a patch the model is measured before
    and after it; without one, as it is, and locality is null. The canaries that the settings name are asked too.
    """
    from factpatch.evaluation.canaries import ask_canaries, read_canaries
    from factpatch.evaluation.evaluate import collect_answers
    from factpatch.evaluation.evaluate import evaluate as run_evaluation
    from factpatch.models import load_model
    from factpatch.patch import apply_patch, read_patch
    from factpatch.release import digest_patch
    from factpatch.structure import locate

    start = time.perf_counter()
    folder = output_folder(output)
    edits, canaries = read_accepted(folder), read_canaries(settings.gates.canaries)
    found = folder / "patch"
    chosen = patch or (found if found.exists() else None)
    loaded = load_model(settings.model)
    before = canaries_before = location = None
    if chosen:
        location = locate(loaded.model, read_patch(chosen).manifest["location"]["name"])
        with show_progress("answers before") as report:
            before = collect_answers(loaded, edits, settings, progress=report, location=location)
            canaries_before = collect_answers(loaded, canaries, settings)
        apply_patch(loaded.model, chosen)
    with show_progress("evaluate") as report:
        value = run_evaluation(loaded, edits, settings, before, report, location)
    value["canaries"] = ask_canaries(loaded, canaries, settings, canaries_before) if canaries else None
    value["patch"] = digest_patch(Path(chosen)) if chosen else None
    value["seconds"] = round(time.perf_counter() - start, 3)
    return str(write_json(folder / "evaluate.json", value))
