"""Canaries: facts and prompts that must be answered right after every edit, whatever it was about.

A file names them, or they are chosen from general knowledge: what the base model surely answers right, in two wordings.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from factpatch.edits.findings import tidy
from factpatch.edits.loading import read_named
from factpatch.edits.mentions import EditMentions
from factpatch.edits.request import EditRequest
from factpatch.errors import InputError
from factpatch.evaluation.answer_cache import open_answer_cache, recall_answers
from factpatch.evaluation.answers import Protocol, matches, normalise
from factpatch.evaluation.chances import SURE_PROBABILITY, token_chances
from factpatch.evaluation.evaluate import Answers, collect_answers
from factpatch.evaluation.intervals import share
from factpatch.evaluation.portable import read_questions
from factpatch.models.encoding import encode_pairs
from factpatch.models.loading import LoadedModel
from factpatch.settings.config import AUTO, Settings

CANARY_LIMIT = 32  # canaries at most, where they are chosen
QUESTIONS_AT_ONCE = 64  # questions asked, until enough are known


def read_canaries(path: str | None) -> list[EditRequest]:
    """The canaries of a file in the form of edit requests, of which `prompt` and `target` count; none without a file.

    Raises InputError for a file that cannot be read, that is empty, or a row without the two.
    """
    if path is None or path == AUTO:
        return []
    canaries = []
    for row in map(tidy, read_named(path, "gates.canaries")):
        prompt, target = row.values.get("prompt"), row.values.get("target")
        if not (isinstance(prompt, str) and prompt.strip() and isinstance(target, str) and target.strip()):
            raise InputError(f"{row.where}: a canary needs a 'prompt' and a 'target', both text")
        canaries.append(EditRequest(row.where, prompt, target))
    if not canaries:
        raise InputError(
            f"gates.canaries: '{path}' holds no canary; add rows with prompt and target, or set it to null"
        )
    return canaries


def find_canaries(loaded: LoadedModel, edits: Sequence[EditRequest], settings: Settings) -> list[EditRequest]:
    """The canaries that the settings name or let choose; `loaded` is the base model.

    Chosen are the first CANARY_LIMIT, in an order drawn by `training.seed`, that the model surely answers right in
    every wording, does answer right when asked, and whose subject no edit names. They depend on nothing else, so every
    step of a run finds the same.
    """
    if settings.gates.canaries != AUTO:
        return read_canaries(settings.gates.canaries)
    edited, questions = EditMentions(edits), read_questions()
    random.Random(settings.training.seed).shuffle(questions)
    free = [question for question in questions if not edited.names(question.subject)]
    known: list[EditRequest] = []
    with open_answer_cache(loaded, settings) as cache:
        while free and len(known) < CANARY_LIMIT:
            asked, free = free[:QUESTIONS_AT_ONCE], free[QUESTIONS_AT_ONCE:]
            for wording in range(len(asked[0].wordings)):
                pairs = [(question.wordings[wording], question.target) for question in asked]
                named = [[*pair, settings.edits.chat_template] for pair in pairs]
                chances = cache.recall("chance", named, partial(_chances, loaded, pairs, settings))
                asked = [
                    question for question, chance in zip(asked, chances, strict=True) if chance >= SURE_PROBABILITY
                ]
            canaries = [
                EditRequest(f"chosen {question.subject}", question.wordings[0], question.target, source=AUTO)
                for question in asked
            ]
            answers = recall_answers(loaded, canaries, settings, cache)  # a sure "9" may become "99" as it goes on
            protocol = settings.evaluation.protocol
            known += [
                canary
                for canary, answer in zip(canaries, answers, strict=True)
                if _right(answer.text, canary, protocol)
            ]
    return known[:CANARY_LIMIT]


def _chances(
    loaded: LoadedModel, pairs: Sequence[tuple[str, str]], settings: Settings, places: Sequence[int]
) -> list[float]:
    """For those of the pairs: the probability of the least likely token of the target after the prompt, EOS not
    counted."""
    rows = encode_pairs(loaded.tokenizer, [pairs[place] for place in places], settings.edits.chat_template)
    return [min(chances[:-1]) for chances in token_chances(loaded, rows, settings)]


def ask_canaries(
    loaded: LoadedModel, canaries: Sequence[EditRequest], settings: Settings, before: Answers | None = None
) -> dict[str, Any]:
    """The share answered right with n and interval, and every answer; `before` holds the base model's answers."""
    outputs = collect_answers(loaded, canaries, settings).outputs
    return score_canaries(canaries, outputs, settings.evaluation.protocol, before)


def score_canaries(
    canaries: Sequence[EditRequest], outputs: Mapping[str, str], protocol: Protocol, before: Answers | None = None
) -> dict[str, Any]:
    """The share of canaries answered right, from texts alone; `outputs` maps each prompt to what was said."""
    right = [_right(outputs[canary.prompt], canary, protocol) for canary in canaries]
    items = [
        {
            "prompt": canary.prompt,
            "target": canary.target,
            "before": before.outputs[canary.prompt] if before else None,
            "output": outputs[canary.prompt],
            "correct": correct,
        }
        for canary, correct in zip(canaries, right, strict=True)
    ]
    return {**share(right, "the model surely answers none of the questions that come along"), "items": items}


def _right(output: str, canary: EditRequest, protocol: Protocol) -> bool:
    """Is it the target; of a chosen canary, does it begin with it? The model was never asked where it would stop."""
    if canary.source != AUTO:
        return matches(output, canary.target, protocol)
    return f"{normalise(output)} ".startswith(f"{normalise(canary.target)} ")
