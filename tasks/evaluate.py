"""The evaluate step: what the accepted edits changed, by free generation before and after the patch."""

from __future__ import annotations

import time

from prefect import task

from factpatch.config import Settings
from factpatch.edits.accepted import read_accepted
from factpatch.files import output_folder, write_json
from factpatch.progress import show_progress


@task(name="evaluate", timeout_seconds=12 * 3600)
def evaluate(output: str, settings: Settings, patch: str | None = None) -> str:
    """Write `evaluate.json` into the output folder and return its path. Not retried: a failure would repeat.

    `patch` is a patch folder, by default `<output>/patch` if it is there. With a patch the model is measured before
    and after it; without one, as it is, and locality is null.
    """
    from factpatch.evaluation.evaluate import collect_answers
    from factpatch.evaluation.evaluate import evaluate as run_evaluation
    from factpatch.models import load_model
    from factpatch.patch import apply_patch

    start = time.perf_counter()
    folder = output_folder(output)
    edits = read_accepted(folder)
    found = folder / "patch"
    chosen = patch or (found if found.exists() else None)
    loaded = load_model(settings.model)
    before = None
    if chosen:
        with show_progress("answers before") as report:
            before = collect_answers(loaded, edits, settings, progress=report)
        apply_patch(loaded.model, chosen)
    with show_progress("evaluate") as report:
        value = run_evaluation(loaded, edits, settings, before, report)
    value["seconds"] = round(time.perf_counter() - start, 3)
    return str(write_json(folder / "evaluate.json", value))
