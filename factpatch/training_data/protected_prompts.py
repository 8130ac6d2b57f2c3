"""Protected prompts: a user's file of prompts that the model is trained to keep answering as it does now."""

from __future__ import annotations

from collections.abc import Sequence

from factpatch.edits.findings import tidy
from factpatch.edits.loading import read_named
from factpatch.edits.request import EditRequest
from factpatch.errors import InputError
from factpatch.evaluation.answer_cache import AnswerCache, recall_answers
from factpatch.models.encoding import Encoded, encode_prompts
from factpatch.models.loading import LoadedModel
from factpatch.settings.config import Settings


def read_protected(settings: Settings) -> list[EditRequest]:
    """The rows of the protected file, as requests; none if the settings name none.

    The file has the form of edit requests; its targets only spare decoding where they are what the model says anyway.
    """
    if settings.training.preservation.prompts is None:
        return []
    kept: dict[str, EditRequest] = {}
    for row in map(tidy, read_named(settings.training.preservation.prompts, "training.preservation.prompts")):
        prompt, target = row.values.get("prompt"), row.values.get("target", "")
        if not isinstance(prompt, str) or not isinstance(target, str):
            raise InputError(f"{row.where}: a protected row needs a 'prompt', and its 'target' must be text")
        if prompt.strip():
            kept[prompt] = EditRequest(row.where, prompt, target)
    return list(kept.values())


def rows_with_own_answers(
    loaded: LoadedModel, requests: Sequence[EditRequest], settings: Settings, cache: AnswerCache
) -> list[Encoded | None]:
    """Each prompt with the very tokens that the model answers it with, EOS only where it says that itself; None where
    it says nothing."""
    answers = recall_answers(loaded, requests, settings, cache)
    prompts = encode_prompts(loaded.tokenizer, [request.prompt for request in requests], settings.edits.chat_template)
    return [
        Encoded(prompt + answer.ids, len(prompt)) if answer.text else None
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def note_on_silent(rows: Sequence[Encoded | None], what: str) -> list[str]:
    """A sentence if the model says nothing to some of the prompts."""
    silent = sum(row is None for row in rows)
    return [f"the base model says nothing to {silent} of {len(rows)} {what}"] if silent else []


def measured_prompts(edit: EditRequest) -> list[str]:
    """Every prompt on which an edit is measured."""
    probes = [probe.prompt for probe in (*edit.locality, *edit.portability)]
    return [edit.prompt, *edit.paraphrases, *probes]
