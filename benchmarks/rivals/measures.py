"""What a model says after an edit, in numbers: each measure has its value, the items behind it and a 95 % interval.

Answers are decoded no further than their verdicts need. What the base model says is asked once for a sample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.rivals.prompts import FORMS, Form, Rewrite, asked_in, rewritten
from benchmarks.rivals.samples import Sample
from benchmarks.step_size import text_losses, text_rows
from factpatch.edits.request import EditRequest
from factpatch.errors import InputError
from factpatch.evaluation.answer_cache import open_answer_cache, recall_evaluated
from factpatch.evaluation.answers import same_content
from factpatch.evaluation.capability import TaskScore, scores_that_count
from factpatch.evaluation.evaluate import CUT, Answers, collect_answers, measure
from factpatch.evaluation.intervals import share
from factpatch.evaluation.paired import mean
from factpatch.models.loading import LoadedModel
from factpatch.settings.config import Settings
from factpatch.training_data.leakage import HeldOut

Measure = Mapping[str, Any]  # value, n, ci95, and a reason where there is no value

PARAGRAPHS = 40  # of general text
TUNED_BY = ("reliability", "generalization", "locality_content")  # their mean chooses among a rival's settings
OF_EDITS = ("reliability", "generalization", "locality", "locality_content", "portability")
NOTHING_SAID = Answers({}, {})  # before prompts whose earlier answers nobody needs


@dataclass(frozen=True)
class Base:
    """What the untouched model says to a sample, the loss of each paragraph of general text, and its scores."""

    answers: Answers
    text: tuple[float, ...]
    capability: Mapping[str, TaskScore] = field(default_factory=dict)


def ask_base(loaded: LoadedModel, sample: Sample, settings: Settings, capability: bool = False) -> Base:
    """Ask the untouched model, as far as an earlier run did not; the tuning rows too."""
    asked = [*sample.edits, *sample.tuning, *_neighbours(sample)]
    with open_answer_cache(loaded, settings) as kept:
        answers = recall_evaluated(loaded, asked, settings, kept)
    text = tuple(text_losses(loaded, text_rows(loaded)[:PARAGRAPHS], settings))
    if not capability:
        return Base(answers, text)
    from tasks.regress import score_base  # with Prefect and the harness, which take seconds to import

    return Base(answers, text, score_base(loaded, _capability_units(loaded, settings), settings)[0])


def measure_edits(
    loaded: LoadedModel, edits: Sequence[EditRequest], base: Base, settings: Settings, rewrite: Rewrite | None = None
) -> dict[str, Measure]:
    """The measures of OF_EDITS, and how many edited prompts are still answered with an old value."""
    found = measure(edits, ask(loaded, edits, settings, base.answers, rewrite), base.answers)
    return {name: _plain(found[name]) for name in OF_EDITS} | {"old_value": _old_value(edits, found["edits"])}


def measure_all(
    loaded: LoadedModel, sample: Sample, base: Base, settings: Settings, rewrite: Rewrite | None = None
) -> dict[str, Measure]:
    """All measures of a model as it is in memory, but those of capability; `rewrite` puts its context before every
    prompt."""
    found = measure_edits(loaded, sample.edits, base, settings, rewrite)
    for form in FORMS:
        found |= _in_form(loaded, form, sample.edits, settings, rewrite)
    for carrier in _neighbours(sample):
        near = measure([carrier], ask(loaded, [carrier], settings, base.answers, rewrite), base.answers)
        found |= {"neighbours": _plain(near["locality"]), "neighbours_content": _plain(near["locality_content"])}
    return found if rewrite else found | {"perplexity": perplexity(loaded, base, settings)}


def perplexity(loaded: LoadedModel, base: Base, settings: Settings) -> Measure:
    """Perplexity of general text as a multiple of the untouched model's."""
    losses = text_losses(loaded, text_rows(loaded)[:PARAGRAPHS], settings)
    rise = mean([new - old for new, old in zip(losses, base.text, strict=True)], "there is no text")
    interval = [math.exp(bound) for bound in rise["ci95"]] if rise["ci95"] else None
    return {"value": math.exp(rise["value"]), "n": rise["n"], "ci95": interval}


def ask(
    loaded: LoadedModel,
    edits: Sequence[EditRequest],
    settings: Settings,
    before: Answers,
    rewrite: Rewrite | None = None,
) -> Answers:
    """The answers to all prompts of the edits; where they are rewritten, under the prompts as they were."""
    if rewrite is None:
        return collect_answers(loaded, edits, settings, before)
    prompts = {prompt for edit in edits for prompt in _prompts(edit)}
    asked = {prompt: rewrite(prompt) for prompt in prompts}
    known = Answers(
        {asked[prompt]: before.outputs[prompt] for prompt in prompts & before.outputs.keys()},
        {},
        {asked[prompt]: before.said[prompt] for prompt in prompts & before.said.keys()},
    )
    found = collect_answers(loaded, [rewritten(edit, asked.__getitem__) for edit in edits], settings, known)
    back = {text: prompt for prompt, text in asked.items()}
    return Answers(
        {back[text]: output for text, output in found.outputs.items()},
        {(back[text], target): accuracy for (text, target), accuracy in found.token_accuracy.items()},
        {back[text]: ids for text, ids in found.said.items()},
        {back[text]: stops for text, stops in found.stops.items()},
    )


def _prompts(edit: EditRequest) -> list[str]:
    return [edit.prompt, *edit.paraphrases, *(probe.prompt for probe in (*edit.locality, *edit.portability))]


def _in_form(
    loaded: LoadedModel, form: Form, edits: Sequence[EditRequest], settings: Settings, rewrite: Rewrite | None
) -> dict[str, Measure]:
    """Reliability and generalization of the edits asked in a form; absent where the model has no such form."""
    named = (f"{form.name}_reliability", f"{form.name}_generalization")
    own = replace(settings, edits=replace(settings.edits, chat_template=form.chat))
    asked = asked_in(form, edits)
    if form.chat and loaded.tokenizer.chat_template is None:
        return {name: share([], "the model has no chat template") for name in named}
    try:
        found = measure(asked, ask(loaded, asked, own, NOTHING_SAID, rewrite), None)
    except InputError as error:  # a template of another kind, or a prompt too long for the model
        return {name: share([], str(error)) for name in named}
    return {name: _plain(found[kind]) for name, kind in zip(named, OF_EDITS[:2], strict=True)}


def _neighbours(sample: Sample) -> list[EditRequest]:
    """The neighbours as locality probes of one request, which asks no further prompt; none where the set has none."""
    first = sample.edits[0]
    carrier = EditRequest("neighbours", first.prompt, first.target, locality=sample.neighbours)
    return [carrier] if sample.neighbours else []


def _old_value(edits: Sequence[EditRequest], rows: Sequence[Mapping[str, Any]]) -> Measure:
    """The share of edited prompts whose answer begins with an old value, of the edits that list one."""
    said = [
        not row["reliable"] and any(same_content(old, row["output"].removesuffix(CUT), old) for old in edit.target_old)
        for edit, row in zip(edits, rows, strict=True)
        if edit.target_old
    ]
    return share(said, "no row lists an old value")


def _plain(found: Mapping[str, Any]) -> Measure:
    return {name: found[name] for name in ("value", "n", "ci95", "reason") if name in found}


def measure_capability(
    loaded: LoadedModel, edits: Sequence[EditRequest], base: Base, settings: Settings
) -> dict[str, Measure]:
    """The share of the suite's items that the model gets right, of those that count: none about what is edited, and of
    tasks that say so those alone that the untouched model gets right."""
    from tasks.regress import counting, score

    unknown = HeldOut(())  # what a rival preserved is not told here
    units = _capability_units(loaded, settings)
    after = score(loaded, units, settings.capability)
    kept = {
        unit.name: scores_that_count(base.capability[unit.name], after[unit.name], counting(unit, edits, unknown))[1]
        for unit in units
    }
    right = [item.score for found in kept.values() for item in found.items if item.score is not None]
    tasks = {name: round(found.value, 4) for name, found in kept.items()}
    return {"capability": {**share(right, "no item counts"), "tasks": tasks}}


def _capability_units(loaded: LoadedModel, settings: Settings) -> list[Any]:
    """The tasks that the model can be asked, but text, whose likelihood is measured apart."""
    from tasks.regress import askable, load_tasks

    units, _ = askable(loaded, load_tasks(settings.capability))
    return [unit for unit in units if unit.name != "portable_text"]
