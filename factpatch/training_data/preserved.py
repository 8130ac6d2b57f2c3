"""The rows that must stay: prompts with the very answers that the base model gives to them, and texts of its own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from factpatch.edits.request import EditRequest
from factpatch.evaluation.answer_cache import AnswerCache
from factpatch.evaluation.prompt_forms import in_other_form
from factpatch.models.encoding import Encoded
from factpatch.models.loading import LoadedModel
from factpatch.settings.config import Settings
from factpatch.training_data.leakage import HeldOut
from factpatch.training_data.own_texts import begun_text_rows, own_question_rows, own_text_rows
from factpatch.training_data.protected_prompts import note_on_silent, rows_with_own_answers

OWN_TEXTS_ALONE = 256  # texts of the model's own where nothing else is kept
OWN_TEXTS, OWN_QUESTIONS = 48, 32  # that are kept beside neighbours: what lies far from the edits
BEGUN_EACH, BEGUN_TEXTS = 2, 80  # that begin as the edits do: for each, and in all at most
PRESERVED_ANSWER_TOKENS = 8  # of an answer that is kept or compared, at most: longer ones cost more and say little more


@dataclass(frozen=True)
class ToPreserve:
    """Prompts whose answers must stay.

    Attributes:
        protected: of the user's file.
        near: neighbours of the edits, to be asked in the form that edits are trained in.
        near_in_other_form: neighbours to be asked in the other form (plain, chat).
        withdrawn: that edits once had.
    """

    protected: Sequence[EditRequest] = ()
    near: Sequence[EditRequest] = ()
    near_in_other_form: Sequence[EditRequest] = ()
    withdrawn: Sequence[EditRequest] = ()


@dataclass(frozen=True)
class Preserved:
    """Preserved rows as they are trained.

    Attributes:
        answered: protected prompts and neighbours that the base model answers, with their rows.
        own: rows of what the model makes up itself.
        withdrawn: rows of prompts that edits once had.
        notes: what is missing, a sentence each.
    """

    answered: tuple[tuple[EditRequest, Encoded], ...]
    own: tuple[Encoded, ...]
    withdrawn: tuple[Encoded, ...]
    notes: tuple[str, ...]

    def rows(self, seed: int) -> tuple[Encoded, ...]:
        """All rows in an order drawn by seed, those of withdrawn prompts last."""
        rows = [*(row for _, row in self.answered), *self.own]
        random.Random(seed).shuffle(rows)
        return (*rows, *self.withdrawn)


def briefly(settings: Settings) -> Settings:
    """The settings with answers of PRESERVED_ANSWER_TOKENS at most."""
    own = settings.evaluation
    return replace(settings, evaluation=replace(own, max_new_tokens=min(PRESERVED_ANSWER_TOKENS, own.max_new_tokens)))


def answer_preserved(
    loaded: LoadedModel,
    asked: ToPreserve,
    edits: Sequence[EditRequest],
    settings: Settings,
    held: HeldOut,
    cache: AnswerCache,
) -> Preserved:
    """What the base model answers to the prompts, and, where the settings ask for neighbours, what it makes up itself
    beside them: texts, and questions with its answers; none that is held out, or nearly so."""
    brief, neighbours = briefly(settings), settings.training.preservation.neighbours
    in_trained_form = [*asked.protected, *asked.near]
    rows = rows_with_own_answers(loaded, [*in_trained_form, *asked.withdrawn], brief, cache)
    other_rows = rows_with_own_answers(loaded, asked.near_in_other_form, in_other_form(brief), cache)
    notes = note_on_silent([*rows, *other_rows], "prompts that were to be kept")
    pairs = [*zip(in_trained_form, rows, strict=False), *zip(asked.near_in_other_form, other_rows, strict=True)]
    answered = tuple((request, row) for request, row in pairs if row)
    own: list[Encoded] = []
    if neighbours:
        count = OWN_TEXTS if answered else min(OWN_TEXTS_ALONE, max(1, round(neighbours * len(edits))))
        own += own_question_rows(loaded, OWN_QUESTIONS, held, brief, cache)
        own += own_text_rows(loaded, count, held, settings)
        own += begun_text_rows(loaded, edits, min(BEGUN_TEXTS, BEGUN_EACH * len(edits)), held, settings)
        if own and not answered:
            notes.append(f"nothing to keep was found, so {len(own)} texts of the model's own are kept")
    withdrawn = tuple(row for row in rows[len(in_trained_form) :] if row)
    return Preserved(answered, tuple(own), withdrawn, tuple(notes))
