"""Wordings that a chat model makes of an edit's prompt itself; its own answers tell which of them ask the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from factpatch.edits.request import EditRequest
from factpatch.evaluation.answer_cache import AnswerCache, recall_decoded
from factpatch.evaluation.answers import same
from factpatch.models.loading import LoadedModel
from factpatch.settings.config import Settings
from factpatch.text.words import places

REQUESTS = (
    "Say the following in other words, as one line that breaks off before the same answer: {}",
    "Ask for the same as one short question: {}",
    "Put this as somebody else would, keeping every name: {}",
)
LINE_MARKS = "\"'`*- "  # around a line that a model writes
EDITS_TRIED_FIRST, LEAST_REWORDED = 4, 1  # where fewer of these get a wording, no others are tried


def reword(
    loaded: LoadedModel, edits: Sequence[EditRequest], settings: Settings, cache: AnswerCache
) -> tuple[Mapping[str, list[str]], list[str]]:
    """Wordings by the edit's prompt, and notes; no wordings at all where the model takes no chat.

    A line counts if it is new, names the edit's subject (where that is known), and the model answers it as it answers
    the edit's own prompt, before anything is trained. Small models hardly ever manage, so a few edits are tried first.
    """
    if loaded.tokenizer.chat_template is None:
        return {}, []
    found = _reworded(loaded, edits[:EDITS_TRIED_FIRST], settings, cache)
    if len(edits) <= EDITS_TRIED_FIRST:
        return found, []
    if len(found) < LEAST_REWORDED:
        told = f"the model put {len(found)} of the first {EDITS_TRIED_FIRST} prompts in words of its own"
        return found, [f"{told}, so it was not asked to put the others"]
    return {**found, **_reworded(loaded, edits[EDITS_TRIED_FIRST:], settings, cache)}, []


def _reworded(
    loaded: LoadedModel, edits: Sequence[EditRequest], settings: Settings, cache: AnswerCache
) -> dict[str, list[str]]:
    """Wordings by the prompt of those edits for which one counts."""
    count = settings.training.augmentation.wordings
    asked = [(edit, request.format(edit.prompt)) for edit in edits for request in REQUESTS[:count]]
    lines = [line.strip(LINE_MARKS) for line in _said(loaded, [text for _, text in asked], True, settings, cache)]
    pairs = [
        (edit, line)
        for (edit, _), line in zip(asked, lines, strict=True)
        if line and line != edit.prompt and (not edit.subject or places(line, edit.subject))
    ]
    chat = settings.edits.chat_template
    texts = list(dict.fromkeys([*(line for _, line in pairs), *(edit.prompt for edit, _ in pairs)]))
    answers = dict(zip(texts, _said(loaded, texts, chat, settings, cache), strict=True))
    found: dict[str, list[str]] = defaultdict(list)
    for edit, line in pairs:
        if answers[line] and same(answers[line], answers[edit.prompt]) and line not in found[edit.prompt]:
            found[edit.prompt].append(line)
    return {prompt: lines for prompt, lines in found.items() if lines}


def _said(loaded: LoadedModel, texts: Sequence[str], chat: bool, settings: Settings, cache: AnswerCache) -> list[str]:
    """The model's greedy answers."""

    return [answer.text for answer in recall_decoded(loaded, texts, chat, settings, cache)]
