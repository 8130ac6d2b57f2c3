"""Wordings that ask the same: templates taken from the edits' own prompts, grouped by what the base model answers.

A template is a prompt with "{}" in place of its subject. Two templates ask the same if the base model, asked both about
the same subjects, answers alike; so nobody has to name relations. A file of the user's own groups comes first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from factpatch.edits.formats import read_file
from factpatch.edits.request import EditRequest
from factpatch.edits.tidying import tidy_texts
from factpatch.errors import InputError
from factpatch.evaluation.answer_cache import AnswerCache, recall_answers
from factpatch.evaluation.answer_reader import Answer
from factpatch.evaluation.generation import verify
from factpatch.frozen_trunk import open_rows
from factpatch.models.encoding import Encoded, encode_prompts
from factpatch.models.loading import LoadedModel
from factpatch.settings.config import Settings
from factpatch.text.words import blanked

BLANK = "{}"
TEMPLATE_LIMIT = 96  # the most frequent ones are compared
LONE = 24  # where there are more, only so many that a single edit brings: what is alike there serves few
GROUP_LIMIT = 24  # are looked for; templates left then stand alone
FRUITLESS_GROUPS = 4  # in a row with no second member, after which no more are looked for: rows share no questions
SUBJECTS_COMPARED = 3  # subjects that a template is compared on
EQUAL_ANSWER_SHARE = 0.75  # share of equal answers from which on two templates ask the same
LEAST_COMPARED = 2  # answers that must have been compared


@dataclass(frozen=True)
class TemplateGroups:
    """Templates that ask the same, by group, and the group of each template; `silent` of the `asked_first` prompts by
    which they were compared got no answer, and tell nothing."""

    groups: tuple[tuple[str, ...], ...]
    group_of: Mapping[str, int]
    silent: int = 0
    asked_first: int = 0

    def asked(self, text: str) -> list[tuple[int, str]]:
        """What a text asks, if it is in one of the templates: the group and the subject."""
        starts = ((length, self._ends.get(text[:length], ())) for length in self._lengths)
        return [
            (group, text[length : len(text) - len(after)])
            for length, ends in starts
            for after, group in ends
            if len(text) > length + len(after) and text.endswith(after)
        ]

    @cached_property
    def _ends(self) -> Mapping[str, list[tuple[str, int]]]:
        """By what stands before the blank: what stands after it, and the group."""
        found: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for template, group in self.group_of.items():
            before, _, after = template.partition(BLANK)
            found[before].append((after, group))
        return found

    @cached_property
    def _lengths(self) -> list[int]:
        return sorted(set(map(len, self._ends)))

    def of(self, edit: EditRequest) -> int | None:
        """The group of an edit's question."""
        template = template_of(edit)
        return None if template is None else self.group_of.get(template)


def template_of(edit: EditRequest) -> str | None:
    """The prompt with its subject left blank; None if it does not name its subject exactly once."""
    found = blanked(edit.prompt, edit.subject or "")
    return found[0] if len(found) == 1 and BLANK not in edit.prompt else None


def fill_template(template: str, subject: str) -> str:
    """The template about a subject."""
    return template.replace(BLANK, subject)


def find_template_groups(
    loaded: LoadedModel, edits: Sequence[EditRequest], settings: Settings, cache: AnswerCache
) -> TemplateGroups:
    """Groups of templates that ask the same, in the order in which the edits bring them."""
    subjects: dict[str, list[EditRequest]] = defaultdict(list)
    for edit in edits:
        template = template_of(edit)
        if template is not None:
            subjects[template].append(edit)
    groups = [list(group) for group in read_templates(settings.training.augmentation.templates)]
    known = {template for group in groups for template in group}
    frequent = sorted(subjects, key=lambda template: -len(subjects[template]))[:TEMPLATE_LIMIT]
    if len(subjects) > TEMPLATE_LIMIT:
        frequent = [template for rank, template in enumerate(frequent) if rank < LONE or len(subjects[template]) > 1]
    compared = {template: subjects[template] for template in frequent if template not in known}
    asked = {template: edits[:SUBJECTS_COMPARED] for template, edits in compared.items()}
    said = _said(loaded, asked, settings, cache)
    groups += _alike(loaded, asked, said, settings, cache)
    groups += [[template] for template in subjects if template not in compared and template not in known]
    return TemplateGroups(
        tuple(map(tuple, groups)),
        {template: number for number, group in enumerate(groups) for template in group},
        sum(not answer.text for answer in said.values()),
        len(said),
    )


def read_templates(path: str | None) -> list[list[str]]:
    """The user's groups: rows of {"templates": [...]}; InputError for a row of another form."""
    if path is None:
        return []
    if not Path(path).is_file():
        raise InputError(f"training.augmentation.templates: there is no file '{path}'; name one, or set it to null")
    groups = []
    for number, row in read_file(Path(path)):
        group = row.get("templates")
        if not isinstance(group, list) or not all(
            isinstance(template, str) and template.count(BLANK) == 1 for template in group
        ):
            raise InputError(
                f"{path} row {number}: 'templates' must be a list of texts with one {BLANK} each, for the subject"
            )
        groups.append(tidy_texts(group))
    return groups


def _said(
    loaded: LoadedModel, asked: Mapping[str, Sequence[EditRequest]], settings: Settings, cache: AnswerCache
) -> Mapping[str, Answer]:
    """The model's answer to each of the edits' prompts."""
    requests = [EditRequest("", edit.prompt, *_guess(edit)) for edits in asked.values() for edit in edits]
    answers = recall_answers(loaded, requests, settings, cache)
    return {request.prompt: answer for request, answer in zip(requests, answers, strict=True)}


def _alike(
    loaded: LoadedModel,
    asked: Mapping[str, Sequence[EditRequest]],
    said: Mapping[str, Answer],
    settings: Settings,
    cache: AnswerCache,
) -> list[list[str]]:
    """Groups of templates with equal answers, each grown around its most frequent template."""
    groups: list[list[str]] = []
    left = list(asked)
    while (
        left
        and len(groups) < GROUP_LIMIT
        and (len(groups) < FRUITLESS_GROUPS or max(map(len, groups[-FRUITLESS_GROUPS:])) > 1)
    ):
        first, *left = left
        crossed = {other: _crossed(first, other, asked, said) for other in left}
        pairs = {other: questions for other, questions in crossed.items() if len(questions) >= LEAST_COMPARED}
        hits = _counted({other: questions[:1] for other, questions in pairs.items()}, loaded, settings, cache)
        # a first question rules most of them out, where there are too few to miss one
        open_still = {other: pairs[other][1:] for other in pairs if hits[other] or _may_miss(len(pairs[other]))}
        for other, more in _counted(open_still, loaded, settings, cache).items():
            hits[other] += more
        joined = [first, *(other for other in open_still if hits[other] >= EQUAL_ANSWER_SHARE * len(pairs[other]))]
        groups.append(joined)
        left = [other for other in left if other not in joined]
    return groups + [[template] for template in left]


def _may_miss(questions: int) -> bool:
    """Do two templates still ask the same if one answer of so many differs?"""
    return questions - 1 >= EQUAL_ANSWER_SHARE * questions


def _counted(
    asked: Mapping[str, Sequence[tuple[str, Answer]]], loaded: LoadedModel, settings: Settings, cache: AnswerCache
) -> dict[str, int]:
    """How many of each template's questions have the answer beside them."""
    questions = [question for own in asked.values() for question in own]
    right = iter(_proven(loaded, questions, settings, cache))
    return {other: sum(next(right) for _ in own) for other, own in asked.items()}


def _guess(edit: EditRequest) -> tuple[str]:
    """What the model is thought to say before the edit."""
    return (edit.target_old[0] if edit.target_old else "",)


def _crossed(
    first: str, other: str, asked: Mapping[str, Sequence[EditRequest]], said: Mapping[str, Answer]
) -> list[tuple[str, Answer]]:
    """Each template about the other's subjects, with what the model said there to the other."""
    return [
        (fill_template(template, edit.subject or ""), said[edit.prompt])
        for template, own in ((first, other), (other, first))
        for edit in asked[own]
        if said[edit.prompt].text  # nothing said to both is no agreement
    ]


def _proven(
    loaded: LoadedModel, questions: Sequence[tuple[str, Answer]], settings: Settings, cache: AnswerCache
) -> list[bool]:
    """Is this the base model's greedy answer?"""
    chat, measuring = settings.edits.chat_template, settings.evaluation

    def ask(places: list[int]) -> list[bool]:
        chosen = [questions[place] for place in places]
        prompts = encode_prompts(loaded.tokenizer, [prompt for prompt, _ in chosen], chat)
        rows = [Encoded(prompt + answer.ids, len(prompt)) for prompt, (_, answer) in zip(prompts, chosen, strict=True)]
        with open_rows(loaded, None, rows, settings.trunk) as opened:
            verdicts = verify(loaded, opened, measuring.max_new_tokens, measuring.batch_size)
        return [verdict.answer is not None for verdict in verdicts]

    named = [[prompt, answer.ids, chat, measuring.max_new_tokens] for prompt, answer in questions]
    return cache.recall("proven", named, ask)
