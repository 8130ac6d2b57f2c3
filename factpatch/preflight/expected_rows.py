"""Rows as many and about as long as training will have, told from the edits and the settings: none is made yet."""

from __future__ import annotations

from collections.abc import Sequence

from factpatch.edits.loading import read_rows
from factpatch.edits.request import EditRequest
from factpatch.methods.base import TrainingRows
from factpatch.models.encoding import Encoded, encode_edit, encode_pairs
from factpatch.models.loading import load_tokenizer
from factpatch.models.sampling import PREFIX_TOKENS
from factpatch.settings.config import Settings
from factpatch.training_data.neighbours import neighbours_of_few
from factpatch.training_data.own_texts import BEGUN_TOKENS
from factpatch.training_data.preserved import BEGUN_EACH, BEGUN_TEXTS, OWN_QUESTIONS, OWN_TEXTS


def expected_rows(settings: Settings, edits: Sequence[EditRequest]) -> TrainingRows:
    """Rows of the edits; of their further wordings at most; and of what is preserved, with the answers that its file
    lists. Wordings and neighbours are taken to be a token longer than the edits' own prompts."""
    tokenizer = load_tokenizer(settings.model)
    chat, training = settings.edits.chat_template, settings.training
    pairs = [(edit.prompt, edit.target) for edit in edits]
    rows = encode_pairs(tokenizer, pairs, chat)
    other_form = training.augmentation.both_forms and tokenizer.chat_template is not None
    in_other_form = encode_pairs(tokenizer, pairs, not chat) if other_form else []
    further = [_longer(row, (-copy,)) for copy in range(training.augmentation.wordings) for row in rows]
    further += [
        _longer(row, (-copy,) * PREFIX_TOKENS) for copy in range(training.augmentation.prefixes) for row in rows
    ]
    kept = _preserved(settings, rows, in_other_form) if training.preservation.neighbours else []
    listed = read_rows(training.preservation.prompts) if training.preservation.prompts else ()
    listed_pairs = ((row.values.get("prompt") or "", row.values.get("target") or "?") for row in listed)
    kept += [encode_edit(tokenizer, prompt, answer, chat) for prompt, answer in listed_pairs if prompt.strip()]
    return TrainingRows(tuple(rows), (*further, *in_other_form), tuple(kept))


def _preserved(settings: Settings, rows: Sequence[Encoded], in_other_form: Sequence[Encoded]) -> list[Encoded]:
    """Neighbours, a third of them in the other form and another in a frame as well, and what the model makes up."""
    preservation, count = settings.training.preservation, len(rows)
    near = max(round(count * preservation.neighbours), neighbours_of_few(preservation, count))
    kept = [_longer(rows[copy % count], (-1, -copy)) for copy in range(near)]
    if settings.training.augmentation.wordings:
        kept += [_longer(rows[copy % count], (-2, -copy)) for copy in range(near // 3)]
    if in_other_form:
        third = range(max(near // 3, OWN_QUESTIONS))
        kept += [_longer(in_other_form[copy % count], (-1, -copy)) for copy in third]
    kept += [Encoded((-copy,) * (PREFIX_TOKENS + 1), 1) for copy in range(1, OWN_TEXTS + 1)]
    begun = min(BEGUN_TEXTS, BEGUN_EACH * count)
    return kept + [Encoded((-copy,) * (BEGUN_TOKENS + 1), 1) for copy in range(1, begun + 1)]


def _longer(row: Encoded, start: tuple[int, ...]) -> Encoded:
    """A stand-in for a row that is not made yet; negative ids are nobody's, so it equals no other row."""
    return Encoded(start + row.ids, len(start) + row.prompt_length)
