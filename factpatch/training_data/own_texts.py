"""Rows for preservation that the model makes itself: short texts, and answers to questions that it makes up as a user
would.

Neighbours guard what lies near the edits; these guard all else, without any text of others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from factpatch.edits.request import EditRequest
from factpatch.errors import InputError
from factpatch.evaluation.answer_cache import AnswerCache
from factpatch.models.chat_template import in_chat
from factpatch.models.encoding import Encoded, encode_prompts
from factpatch.models.loading import LoadedModel
from factpatch.models.sampling import PREFIX_TOKENS, plain_text, sample_ids
from factpatch.settings.config import Settings
from factpatch.training_data.leakage import HeldOut
from factpatch.training_data.protected_prompts import rows_with_own_answers

QUESTION_TOKENS = 24  # at most, of a question that the model makes up
BEGINNING_TOKENS = 2  # of an edit's prompt, after which the model goes on by itself
BEGUN_TOKENS = 24  # at most, that it adds
BEGINNINGS = 16  # different ones at most, the most frequent; each is drawn after by itself
MARK = "\ue000"  # a private character: no template writes it by itself


def own_text_rows(loaded: LoadedModel, count: int, held: HeldOut, settings: Settings) -> list[Encoded]:
    """Preservation rows of short texts that the base model samples from nothing but its end-of-text token; all of each
    is to be predicted. Texts that are held out, or nearly so, are left out, so there may be fewer than `count`."""
    return _text_rows(loaded, [(loaded.tokenizer.eos_token_id,)] * count, PREFIX_TOKENS, held, settings)


def begun_text_rows(
    loaded: LoadedModel, edits: Sequence[EditRequest], count: int, held: HeldOut, settings: Settings
) -> list[Encoded]:
    """Preservation rows of texts that begin as the edits' prompts do ("What is", "The capital") and go on as the base
    model has them; there may be fewer than `count`. Taught to answer after some such prompts, a model soon breaks off
    every text of the kind to answer."""
    if settings.edits.chat_template:  # there every prompt begins as the template does
        return []
    prompts = encode_prompts(loaded.tokenizer, [edit.prompt for edit in edits])
    common = Counter(ids[:BEGINNING_TOKENS] for ids in prompts if len(ids) > BEGINNING_TOKENS).most_common(BEGINNINGS)
    begun = sum(edited for _, edited in common)
    starts = [start for start, edited in common for _ in range(-(-count * edited // begun))]
    return _text_rows(loaded, starts, BEGUN_TOKENS, held, settings)[:count]


def _text_rows(
    loaded: LoadedModel, starts: Sequence[tuple[int, ...]], tokens: int, held: HeldOut, settings: Settings
) -> list[Encoded]:
    """Rows of texts that the model draws after the starts, without those that are held out, or nearly so."""
    said = sample_ids(loaded, starts, settings.training.seed, tokens)
    drawn = list(dict.fromkeys((*start, *ids) for start, ids in zip(starts, said, strict=True)))
    texts = [plain_text(loaded, ids) for ids in drawn]
    return [Encoded(ids, 1) for ids, text in zip(drawn, texts, strict=True) if text and held.twin(text) is None]


def own_question_rows(
    loaded: LoadedModel, count: int, held: HeldOut, settings: Settings, cache: AnswerCache
) -> list[Encoded]:
    """Questions that the model makes up where its chat template has a user speak, with its own answers; none where it
    has no template, or one that does not begin a user's turn."""
    start = _users_turn(loaded.tokenizer)
    if start is None:
        return []
    drawn = sample_ids(loaded, [start] * count, settings.training.seed, QUESTION_TOKENS)
    texts = list(dict.fromkeys(plain_text(loaded, ids) for ids in drawn))
    questions = [text for text in texts if text and held.twin(text) is None]
    asked = [EditRequest("own", text, "") for text in questions]
    in_a_chat = replace(settings, edits=replace(settings.edits, chat_template=True))
    return [row for row in rows_with_own_answers(loaded, asked, in_a_chat, cache) if row]


def _users_turn(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...] | None:
    """The ids of a chat up to where a user's words begin."""
    try:
        before, found, _ = in_chat(tokenizer, MARK).partition(MARK) if tokenizer.chat_template else ("", "", "")
    except InputError:
        return None
    return tuple(tokenizer(before, add_special_tokens=False).input_ids) if found and before else None
