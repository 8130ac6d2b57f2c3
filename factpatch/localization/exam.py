"""What a place is tried on: a sample of the edits to train, and what is asked afterwards, the same for all places.

A place is measured by verification alone: an answer counts if one forward pass proves it (see
`factpatch.evaluation.generation`), and nothing is decoded. A right answer in another form ("the Nile" for "Nile") then
counts as wrong, so the shares are lower bounds, but they treat all places alike.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from factpatch.answered import remembered
from factpatch.companions import Companions, find_companions
from factpatch.config import Settings
from factpatch.edits.request import EditRequest
from factpatch.encoding import Encoded, encode_edit
from factpatch.evaluation.generation import verify
from factpatch.files import digest_value
from factpatch.models import LoadedModel
from factpatch.protection import answered_rows, asked_prompts, protected_requests, told_silent
from factpatch.trunk import open_rows

UNRELATED = 96  # prompts at most that stand for the model's other abilities
ABSENT = {
    "reliability": "there are no edits",
    "generalization": "no edit of the sample has a paraphrase",
    "locality": "no edit of the sample has a locality probe whose answer a pass proves",
    "capability": "there are no protected or unrelated prompts whose answer a pass proves",
}


@dataclass(frozen=True)
class Question:
    """A prompt with the answer that should come: the target (`reliability`, `generalization`), or what the model said
    before (`locality`, `capability`). `edit` is the sample's edit that it belongs to, -1 for none."""

    metric: str
    edit: int
    row: Encoded


@dataclass(frozen=True)
class Exam:
    """The sample's training rows (edits, then further wordings of them, then what is kept) and questions.

    Attributes:
        edits, wordings: how many of the rows are edits, and further wordings.
        share: of all edits that the sample is.
        notes: what cannot be measured, and why; a sentence each.
    """

    training: tuple[Encoded, ...]
    edits: int
    share: float
    questions: tuple[Question, ...]
    notes: tuple[str, ...]
    wordings: int = 0

    @property
    def digest(self) -> str:
        """Names what is trained and asked."""
        return digest_value(to_json(self))

    @property
    def rows(self) -> list[Encoded]:
        """Training rows, then questions."""
        return [*self.training, *(question.row for question in self.questions)]


def make_exam(loaded: LoadedModel, edits: Sequence[EditRequest], settings: Settings, size: int) -> Exam:
    """A seeded sample of `size` edits, with a share of the protected prompts as large as the sample is of all edits.

    Prompts for `capability` are other protected ones, or, where the settings protect none, locality probes of edits
    outside the sample.
    """
    generator = random.Random(settings.training.seed)
    chosen = set(generator.sample(range(len(edits)), size))
    sample = [edit for index, edit in enumerate(edits) if index in chosen]
    share = size / len(edits)
    protected = protected_requests(edits, settings)
    generator.shuffle(protected)
    held_out = min(UNRELATED, len(protected) // 4)
    unrelated = protected[:held_out] or _other_probes(edits, sample)
    trained = protected[held_out:][: round(len(protected) * share)]
    probes = [
        (number, EditRequest(edit.id, probe.prompt, probe.target))
        for number, edit in enumerate(sample)
        for probe in edit.locality
    ]
    requests = [*trained, *unrelated, *(probe for _, probe in probes)]
    with remembered(loaded, settings) as memory:
        answered = answered_rows(loaded, requests, settings, memory)
    kept = [
        *(Question("locality", number, row) for (number, _), row in _pairs(probes, answered[-len(probes) :])),
        *(Question("capability", -1, row) for _, row in _pairs(unrelated, answered[len(trained) :])),
    ]
    chat = settings.edits.chat_template
    asked = [
        *(
            Question("reliability" if prompt == edit.prompt else "generalization", number, row)
            for number, edit in enumerate(sample)
            for prompt in dict.fromkeys((edit.prompt, *edit.paraphrases))
            for row in [encode_edit(loaded.tokenizer, prompt, edit.target, chat)]
        ),
        *provable(loaded, kept, settings),
    ]
    known = {question.metric for question in asked}
    notes = [f"{name} is unknown: {why}" for name, why in ABSENT.items() if name not in known]
    notes += told_silent(answered, "prompts whose answers should stay; these are neither kept nor measured")
    rows = [question.row for question in asked if question.metric == "reliability"]
    guarded = [row for row in answered[: len(trained)] if row]
    also = _companions(loaded, sample, settings)
    training = (*rows, *also.wordings, *guarded, *also.kept)
    return Exam(training, len(rows), share, tuple(asked), tuple(notes), len(also.wordings))


def provable(loaded: LoadedModel, questions: Sequence[Question], settings: Settings) -> list[Question]:
    """Those questions whose answer a pass through the model as it is proves."""
    with open_rows(loaded, None, [question.row for question in questions], settings.trunk) as rows:
        verdicts = verify(loaded, rows, settings.evaluation.max_new_tokens, settings.evaluation.batch_size)
    return [question for question, verdict in zip(questions, verdicts, strict=True) if verdict.answer is not None]


def to_json(exam: Exam) -> dict[str, Any]:
    """The exam as plain values."""
    return asdict(exam)


def from_json(value: dict[str, Any]) -> Exam:
    """An exam from what `to_json` gave and a file kept."""

    def encoded(row: dict[str, Any]) -> Encoded:
        return Encoded(tuple(row["ids"]), row["prompt_length"])

    questions = (Question(one["metric"], one["edit"], encoded(one["row"])) for one in value["questions"])
    training = tuple(encoded(row) for row in value["training"])
    notes = tuple(value["notes"])
    return Exam(training, value["edits"], value["share"], tuple(questions), notes, value["wordings"])


def _companions(loaded: LoadedModel, sample: Sequence[EditRequest], settings: Settings) -> Companions:
    """Neighbours and further wordings of the sample, where the settings ask for any."""
    training = settings.training
    if not (training.neighbours or training.wordings or training.prefixes or training.both_forms):
        return Companions()
    return find_companions(loaded, sample, replace(settings, training=replace(training, protect=None)))


def _other_probes(edits: Sequence[EditRequest], sample: Sequence[EditRequest]) -> list[EditRequest]:
    """Locality probes of edits outside the sample that the sample does not ask."""
    asked = {prompt for edit in sample for prompt in asked_prompts(edit)}
    inside = {edit.id for edit in sample}
    others = {
        probe.prompt: EditRequest(edit.id, probe.prompt, probe.target)
        for edit in edits
        if edit.id not in inside
        for probe in edit.locality
        if probe.prompt not in asked
    }
    return list(others.values())[:UNRELATED]


def _pairs(requests: Sequence[Any], rows: Sequence[Encoded | None]) -> list[tuple[Any, Encoded]]:
    """Requests with their rows, where the model says anything."""
    return [(request, row) for request, row in zip(requests, rows, strict=False) if row is not None]
