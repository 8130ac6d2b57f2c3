"""What a model was asked and said, kept on disk: a later run with the same model asks only what is new.

A file holds one model's answers, as JSON with a digest of its content: a damaged file counts as none. It is replaced
whole, so a killed run leaves the old one; of two runs at once the later one's stays, and costs the other's time again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any, TypeVar

from factpatch.disk_cache import evict, read_cached_json
from factpatch.edits.request import EditRequest
from factpatch.errors import InputError
from factpatch.evaluation.answer_reader import Answer, stop_ids
from factpatch.evaluation.evaluate import Answers, collect_answers
from factpatch.evaluation.generation import decode
from factpatch.files import digest_value, output_folder, remove_litter, write_json
from factpatch.models.encoding import encode_prompts
from factpatch.models.loading import LoadedModel, fingerprint, known_digests, tokenizer_digest
from factpatch.models.locations import Location
from factpatch.progress import Progress
from factpatch.settings.config import Settings

CACHE_VERSION = "3"  # of the files; another number never reads these
ANSWER_LIMIT = 200_000  # answers of a file; those asked for longest ago go first
CACHE_BYTES = 2**28  # of all files; the one used longest ago goes first

log = logging.getLogger(__name__)
Found = TypeVar("Found")


class AnswerCache:
    """A model's answers, of this run and earlier ones, by the digest of what was asked; the last asked for last."""

    def __init__(self, known: dict[str, Any]) -> None:
        self.known = known
        self.grown = False

    def recall(self, kind: str, asked: Sequence[Any], ask: Callable[[list[int]], Sequence[Found]]) -> list[Found]:
        """The answer to each question in `asked`: the known one, or that of `ask`, which is called once with the
        positions of the questions that have none and gives their answers in that order.

        Questions and answers are JSON values; questions of different kinds never share an answer.
        """
        names = [digest_value([kind, question])[:32] for question in asked]
        missing = [place for place, name in enumerate(names) if name not in self.known]
        made = dict(zip((names[place] for place in missing), ask(missing) if missing else (), strict=True))
        answers = {name: made[name] if name in made else self.known.pop(name) for name in dict.fromkeys(names)}
        self.known |= answers
        self.grown |= bool(made)
        return [answers[name] for name in names]


def recall_answers(
    loaded: LoadedModel,
    requests: Sequence[EditRequest],
    settings: Settings,
    cache: AnswerCache,
    progress: Progress | None = None,
) -> list[Answer]:
    """The model's greedy answer to each request's prompt; targets only spare decoding where they are the answer."""
    chat = settings.edits.chat_template

    def ask(places: list[int]) -> list[Answer]:
        told = collect_answers(loaded, [requests[place] for place in places], settings, progress=progress, whole=True)
        prompts = (requests[place].prompt for place in places)
        return [Answer(told.outputs[prompt], told.said[prompt]) for prompt in prompts]

    tokens = settings.evaluation.max_new_tokens
    return _recall(cache, [(request.prompt, chat, tokens) for request in requests], ask)


def recall_evaluated(
    loaded: LoadedModel,
    edits: Sequence[EditRequest],
    settings: Settings,
    cache: AnswerCache,
    progress: Progress | None = None,
    location: Location | None = None,
) -> Answers:
    """What the base model answers to all prompts of the edits, as the evaluation needs it: from the cache where it was
    asked before. Locality probes are answered whole, others as far as verdicts and report need."""
    probes = {probe.prompt: probe.target for edit in edits for probe in edit.locality}
    others, own = [replace(edit, locality=()) for edit in edits], settings.evaluation
    chat, shown = settings.edits.chat_template, None if settings.judge.address else own.report_tokens

    total = len({*probes, *(prompt for edit in others for prompt in _prompts(edit))})

    def ask(places: list[int]) -> list[Any]:
        asked = [others[place] for place in places]
        told = collect_answers(loaded, asked, settings, None, later, location)
        return [
            {
                "said": [[prompt, told.outputs[prompt], list(told.said[prompt])] for prompt in _prompts(edit)],
                "accuracy": told.token_accuracy[edit.prompt, edit.target],
            }
            for edit in asked
        ]

    def sooner(done: int, _: int) -> None:
        report(done, total)

    def later(done: int, _: int) -> None:
        report(min(len(probes) + done, total), total)

    report = progress or (lambda done, total: None)
    requests = [EditRequest("", prompt, target) for prompt, target in probes.items()]
    whole = recall_answers(loaded, requests, settings, cache, sooner)
    named = [
        [edit.prompt, edit.target, edit.target_old[:1], edit.paraphrases, list(map(astuple, edit.portability))]
        for edit in others
    ]
    kept = cache.recall("edit", [[*question, chat, shown, own.protocol] for question in named], ask)
    said = dict(zip(probes, whole, strict=True))
    for prompt, text, ids in (said_there for found in kept for said_there in found["said"]):
        if prompt not in said or len(ids) > len(said[prompt].ids):
            said[prompt] = Answer(text, tuple(ids))
    return Answers(
        {prompt: answer.text for prompt, answer in said.items()},
        {(edit.prompt, edit.target): found["accuracy"] for edit, found in zip(edits, kept, strict=True)},
        {prompt: answer.ids for prompt, answer in said.items()},
    )


def _prompts(edit: EditRequest) -> list[str]:
    return [edit.prompt, *edit.paraphrases, *(probe.prompt for probe in edit.portability)]


def recall_decoded(
    loaded: LoadedModel, prompts: Sequence[str], chat: bool, settings: Settings, cache: AnswerCache
) -> list[Answer]:
    """The model's greedy answers to prompts where there is no guess at them, plainly or through the chat template."""
    own = settings.evaluation

    def ask(places: list[int]) -> list[Answer]:
        rows = encode_prompts(loaded.tokenizer, [prompts[place] for place in places], chat)
        return decode(loaded, rows, own.max_new_tokens, own.batch_size)

    return _recall(cache, [(prompt, chat, own.max_new_tokens) for prompt in prompts], ask)


def _recall(
    cache: AnswerCache, asked: Sequence[tuple[str, bool, int]], ask: Callable[[list[int]], Sequence[Answer]]
) -> list[Answer]:
    """Answers to prompts, each with whether it goes through the chat template, and how many tokens it has at most."""

    def plain(places: list[int]) -> list[list[Any]]:
        return [[answer.text, list(answer.ids)] for answer in ask(places)]

    found = cache.recall("answer", asked, plain)
    return [Answer(text, tuple(ids)) for text, ids in found]


@contextmanager
def open_answer_cache(loaded: LoadedModel, settings: Settings) -> Iterator[AnswerCache]:
    """The answer cache of this model as it is loaded now; what is added is written when the block ends well."""
    if settings.evaluation.cache is None:
        yield AnswerCache({})
        return
    try:
        folder = output_folder(settings.evaluation.cache)
    except InputError as error:
        told = f"evaluation.cache '{settings.evaluation.cache}' cannot be written; name another one, or null for none"
        raise InputError(told) from error
    path = folder / f"{_model_digest(loaded)}.json"
    cache = AnswerCache(read_cached_json(path, _answers) or {})
    yield cache
    if cache.grown:
        _write(path, dict(list(cache.known.items())[-ANSWER_LIMIT:]))
    elif path.exists():
        os.utime(path)
    remove_litter(folder)
    evict(folder.glob("*.json"), path, CACHE_BYTES)


def _model_digest(loaded: LoadedModel) -> str:
    """Names all that an answer depends on but the question: weights, configuration, tokenizer, where an answer ends."""
    parts = {
        "form": CACHE_VERSION,
        "weights": fingerprint(known_digests(loaded.model)),
        "config": loaded.model.config.to_json_string(use_diff=False),
        "tokenizer": tokenizer_digest(loaded.tokenizer),
        "chat_template": loaded.tokenizer.chat_template,
        "stops": sorted(stop_ids(loaded.model, loaded.tokenizer)),
        "device": loaded.model.device.type,
    }
    return digest_value(parts)[:32]


def _answers(value: Any) -> dict[str, Any]:
    """Those of a file's value."""
    if digest_value(value["answers"]) != value["sha256"]:
        raise ValueError("its content is not what was written")
    return dict(value["answers"])


def _write(path: Path, answers: dict[str, Any]) -> None:
    """Write the answers, as far as the disk takes them: what is not kept is asked again."""
    try:
        write_json(path, {"sha256": digest_value(answers), "answers": answers})
    except OSError as error:
        log.warning("answers cannot be kept in '%s' (%s)", path, error)
