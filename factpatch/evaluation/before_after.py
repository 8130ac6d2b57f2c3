"""What a patch changes: the base model is asked, then the same model with the patch, and both are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from factpatch.edits.request import EditRequest
from factpatch.evaluation.canaries import ask_canaries, find_canaries
from factpatch.evaluation.divergence import divergences, drawn_probes, first_distributions
from factpatch.evaluation.evaluate import collect_answers
from factpatch.evaluation.judging import Judgement, disputed, judge_answers
from factpatch.evaluation.prompt_forms import Asked, ask_forms, measure_forms, trained_answers, with_divergence
from factpatch.models.loading import LoadedModel, preserved, write_values
from factpatch.models.locations import locate
from factpatch.patches.patch import Patch, new_values
from factpatch.progress import Progress, Report
from factpatch.settings.config import Settings


def evaluate(
    loaded: LoadedModel,
    edits: Sequence[EditRequest],
    settings: Settings,
    patch: Patch | None = None,
    progress: Report | None = None,
) -> dict[str, Any]:
    """The value of `evaluate.json`, without its seconds and digests; the model is left as found, bit for bit.

    With a patch the model is measured before and after it; without one, as it is, and locality is null. A model with a
    chat template is measured in both forms. The canaries and the judge that the settings name are asked too.
    """

    def telling(note: str) -> Progress:
        return lambda done, total: progress(done, total, note) if progress else None

    values, location = None, None
    if patch is not None:
        location = locate(loaded.model, patch.manifest["location"]["name"])
        values = new_values(loaded, patch)  # refused here for another base, before anything is asked
    canaries, probes = find_canaries(loaded, edits, settings), drawn_probes(edits, settings.training.seed)
    before = canaries_before = None
    if location is not None:
        before = ask_forms(loaded, edits, settings, progress=telling("before the patch"), location=location)
        canaries_before = collect_answers(loaded, canaries, settings)
        expected = first_distributions(loaded, probes, settings, location)
    with preserved(loaded.model, location.parameters if location else ()):
        write_values(loaded.model, values or {})
        after = ask_forms(loaded, edits, settings, before, telling("with the patch" if patch else "as it is"), location)
        if location is not None:
            moved = divergences(expected, first_distributions(loaded, probes, settings, location))
            after = with_divergence(after, dict(zip(probes, moved, strict=True)))
        asked = settings.gates.canaries is not None
        told = ask_canaries(loaded, canaries, settings, canaries_before) if asked else None
    judgement = ask_judge(edits, after, before, settings, telling("judge"))
    return measure_forms(edits, after, before, settings, judgement) | {"canaries": told}


def ask_judge(
    edits: Sequence[EditRequest], after: Asked, before: Asked | None, settings: Settings, progress: Progress
) -> Judgement | None:
    """What the judge says to the answers in the trained form, the edited model's first; None if there is no judge."""
    if settings.judge.address is None:
        return None
    outputs = [trained_answers(asked).outputs for asked in (after, before) if asked]
    return judge_answers(disputed(edits, outputs, settings.evaluation.protocol), settings.judge, progress)
