"""The evaluate step: what the accepted edits changed, by free generation before and after the patch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task

from factpatch.edits.accepted import read_accepted
from factpatch.edits.request import EditRequest
from factpatch.files import output_folder, write_json
from factpatch.progress import show_progress
from factpatch.settings.config import Settings

if TYPE_CHECKING:
    from factpatch.evaluation.judging import Judgement
    from factpatch.evaluation.prompt_forms import Asked
    from factpatch.models.loading import LoadedModel


@task(name="evaluate", timeout_seconds=12 * 3600)
def evaluate(output: str, settings: Settings, patch: str | None = None) -> str:
    """Write `evaluate.json` into the output folder and return its path. Not retried: a failure would repeat.

    `patch` is a patch folder, by default `<output>/patch` if it is there. With a patch the model is measured before
    and after it; without one, as it is, and locality is null. A model with a chat template is measured in both forms.
    The canaries and the judge that the settings name are asked too.
    """
    from factpatch.release.record import digest_patch
    from tasks.tools.base_model import base_model

    start = time.perf_counter()
    folder = output_folder(output)
    edits = read_accepted(folder)
    found = folder / "patch"
    chosen = patch or (found if found.exists() else None)
    with base_model(settings.model) as loaded:
        value = _measure(loaded, edits, settings, chosen)
    value["patch"] = digest_patch(Path(chosen)) if chosen else None
    value["seconds"] = round(time.perf_counter() - start, 3)
    return str(write_json(folder / "evaluate.json", value))


def _measure(
    loaded: LoadedModel, edits: list[EditRequest], settings: Settings, patch: str | Path | None
) -> dict[str, Any]:
    """What `evaluate.json` tells of the model before the patch and with it; the model is left as found."""
    from factpatch.evaluation.canaries import ask_canaries, find_canaries
    from factpatch.evaluation.divergence import divergences, drawn_probes, first_distributions
    from factpatch.evaluation.evaluate import collect_answers
    from factpatch.evaluation.prompt_forms import ask_forms, measure_forms, with_divergence
    from factpatch.models.loading import preserved
    from factpatch.models.locations import locate
    from factpatch.patches.patch import apply_patch, read_patch

    canaries = find_canaries(loaded, edits, settings)
    probes = drawn_probes(edits, settings.training.seed)
    before = canaries_before = location = None
    if patch:
        location = locate(loaded.model, read_patch(patch).manifest["location"]["name"])
        with show_progress("answers before") as report:
            before = ask_forms(loaded, edits, settings, progress=report, location=location)
            canaries_before = collect_answers(loaded, canaries, settings)
            expected = first_distributions(loaded, probes, settings, location)
    with preserved(loaded.model, location.parameters if location else ()):
        if patch:
            apply_patch(loaded, patch)
        with show_progress("evaluate") as report:
            after = ask_forms(loaded, edits, settings, before, report, location)
            if patch:
                moved = divergences(expected, first_distributions(loaded, probes, settings, location))
                after = with_divergence(after, dict(zip(probes, moved, strict=True)))
        judgement = ask_judge(edits, after, before, settings)
        value = measure_forms(edits, after, before, settings, judgement)
        named = settings.gates.canaries is not None
        value["canaries"] = ask_canaries(loaded, canaries, settings, canaries_before) if named else None
    return value


def ask_judge(edits: Sequence[EditRequest], after: Asked, before: Asked | None, settings: Settings) -> Judgement | None:
    """What the judge says to the answers in the trained form, the edited model's first; None if there is no judge."""
    from factpatch.evaluation.judging import disputed, judge_answers
    from factpatch.evaluation.prompt_forms import trained_answers

    if settings.judge.address is None:
        return None
    outputs = [trained_answers(asked).outputs for asked in (after, before) if asked]
    with show_progress("judge") as report:
        return judge_answers(disputed(edits, outputs, settings.evaluation.protocol), settings.judge, report)
