"""Both forms in which a model with a chat template may be asked: the prompt as it stands, or through the template.

`edits.chat_template` says in which form edits are trained, and all metrics are of that form. The other one is measured
beside it, since an edit that holds in one form alone is a surprise to whoever asks in the other.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from factpatch.edits.request import EditRequest
from factpatch.errors import InputError
from factpatch.evaluation.answer_cache import open_answer_cache, recall_evaluated
from factpatch.evaluation.evaluate import METRICS, Answers, collect_answers, describe_metrics, measure
from factpatch.evaluation.intervals import share
from factpatch.evaluation.judging import Judgement
from factpatch.models.loading import LoadedModel
from factpatch.models.locations import Location
from factpatch.progress import Progress
from factpatch.settings.config import Settings

PromptForm = Literal["plain", "chat"]
Asked = Mapping[PromptForm, Answers | InputError]  # the trained form first; an error says why the other cannot be asked

# of the form that is not trained:
MEASURED_METRICS = ("reliability", "generalization", "locality", "locality_content", "portability")
MEANING = {
    "plain": "asked plainly, where edits were trained through the chat template",
    "chat": "asked through the chat template, where edits were trained plainly",
}


def trained_form(settings: Settings) -> PromptForm:
    """The form in which edits are trained and measured."""
    return "chat" if settings.edits.chat_template else "plain"


def in_other_form(settings: Settings) -> Settings:
    """The settings with prompts asked through the chat template where they were plain, or the other way round."""
    return replace(settings, edits=replace(settings.edits, chat_template=not settings.edits.chat_template))


def ask_forms(
    loaded: LoadedModel,
    edits: Sequence[EditRequest],
    settings: Settings,
    before: Asked | None = None,
    progress: Progress | None = None,
    location: Location | None = None,
) -> Asked:
    """The answers to all prompts of the edits in the trained form and, if the model has a chat template, in the other.

    `before` are the answers of the model before the edit, which is asked only what no earlier run asked it; `location`
    is as in `collect_answers`. The other form is asked of `sample_edits` alone. In it a prompt may be too long for the
    model, or the template of another kind; that ends no measurement.
    """
    chosen: dict[PromptForm, Settings] = {trained_form(settings): settings}
    if loaded.tokenizer.chat_template is not None and settings.evaluation.other_form != 0:
        other = in_other_form(settings)
        chosen[trained_form(other)] = other
    asked: dict[PromptForm, Answers | InputError] = {}
    for number, (form, own) in enumerate(chosen.items()):
        known = before[form] if before else None
        if isinstance(known, InputError):
            asked[form] = known
            continue
        part = edits if own is settings else sample_edits(edits, settings)
        report = _part(progress, number, len(chosen)) if progress else None
        try:
            if known is not None:
                asked[form] = collect_answers(loaded, part, own, known, report, location)
            else:
                with open_answer_cache(loaded, own) as cache:
                    asked[form] = recall_evaluated(loaded, part, own, cache, report, location)
        except InputError as error:
            if own is settings:
                raise
            asked[form] = error
    return asked


def sample_edits(edits: Sequence[EditRequest], settings: Settings) -> Sequence[EditRequest]:
    """The edits that are asked in the other form too: `evaluation.other_form` of them, drawn by `training.seed`."""
    count = settings.evaluation.other_form
    if count is None or count >= len(edits):
        return edits
    return [edits[place] for place in sorted(random.Random(settings.training.seed).sample(range(len(edits)), count))]


def with_divergence(asked: Asked, divergence: Mapping[str, float]) -> Asked:
    """The answers with how far expectations in the trained form moved, by prompt."""
    form = next(iter(asked))
    return {**asked, form: replace(trained_answers(asked), divergence=divergence)}


def _part(progress: Progress, number: int, parts: int) -> Progress:
    """Progress of one of several parts of the same size."""
    return lambda done, total: progress(number * total + done, parts * total)


def trained_answers(asked: Asked) -> Answers:
    """The answers in the trained form."""
    answers = next(iter(asked.values()))
    assert isinstance(answers, Answers)
    return answers


def measure_forms(
    edits: Sequence[EditRequest],
    after: Asked,
    before: Asked | None,
    settings: Settings,
    judgement: Judgement | None = None,
) -> dict[str, Any]:
    """The value of `evaluate.json`, without its `seconds`: metrics and outputs of the trained form, and of the other
    the metrics of `MEASURED_METRICS` under its name (`chat_reliability`), and the outputs as `other_form`."""
    protocol = settings.evaluation.protocol
    old = trained_answers(before) if before else None
    value = measure(edits, trained_answers(after), old, protocol, judgement)
    value |= {"form": trained_form(settings), "other_form": None}
    for form, answers in after.items():
        if form != value["form"]:
            asked = sample_edits(edits, settings)
            value = _beside(value, form, _measure_other(asked, form, answers, before, settings))
    return value


def _measure_other(
    edits: Sequence[EditRequest],
    form: PromptForm,
    answers: Answers | InputError,
    before: Asked | None,
    settings: Settings,
) -> dict[str, Any]:
    """What `measure` gives in a form; null metrics with the reason where it could not be asked."""
    if isinstance(answers, InputError):
        nothing = {name: share([], str(answers)) for name in MEASURED_METRICS}
        return {**nothing, "before": nothing if before else None, "edits": []}
    old = before[form] if before else None
    return measure(edits, answers, old if isinstance(old, Answers) else None, settings.evaluation.protocol)


def _beside(value: Mapping[str, Any], form: PromptForm, other: Mapping[str, Any]) -> dict[str, Any]:
    """The trained form's value with the metrics of the other form beside its own."""

    def named(found: Mapping[str, Any]) -> dict[str, Any]:
        return {f"{form}_{name}": found[name] for name in MEASURED_METRICS}

    definitions = {
        f"{form}_{name}": replace(METRICS[name], meaning=f"{METRICS[name].meaning}; {MEANING[form]}")
        for name in MEASURED_METRICS
    }
    return {
        **value,
        **named(other),
        "definitions": {**value["definitions"], **describe_metrics(definitions, value["protocol"])},
        "before": {**value["before"], **named(other["before"])} if value["before"] else None,
        "other_form": {"form": form, "edits": other["edits"]},
    }
