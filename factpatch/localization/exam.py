"""What a place is tried on: a sample of the edits to train, and what is asked afterwards, the same for all places.

An exam only tells places apart, so it is small: all its parts are bounded, whatever the edits bring, answers are looked
at up to TOKENS tokens, and the edits are trained in their own wording. A place is measured by verification alone: an
answer counts if one forward pass proves it (see `factpatch.evaluation.generation`), and nothing is decoded. A right
answer in another form ("the Nile" for "Nile") then counts as wrong, so the shares are lower bounds, but they treat all
places alike.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice, zip_longest
from typing import Any

from factpatch.answered import Memory, remembered
from factpatch.config import EvaluationSettings, Settings
from factpatch.edits.request import EditRequest
from factpatch.encoding import Encoded, encode_edit
from factpatch.evaluation.canaries import find_canaries
from factpatch.evaluation.generation import verify
from factpatch.evaluation.portable import read_questions
from factpatch.files import digest_value
from factpatch.leakage import Edited, HeldOut, held_out, unasked
from factpatch.models import LoadedModel
from factpatch.protection import answered_rows, asked_prompts, listed_requests, told_silent
from factpatch.similar import similar_names
from factpatch.subjects import with_subjects
from factpatch.trunk import open_rows
from factpatch.wordings import fill, template_of

TOKENS = 3  # of an answer that are looked at, and kept: what it says is told by its beginning
EACH = 2  # paraphrases, and probes, of an edit that are asked at most
KEPT = 2  # prompts to keep for each edit of the sample, of each source
ASKED = 32  # prompts at most that stand for what lies near where there are no probes; as many for other abilities
ABSENT = {
    "reliability": "there are no edits",
    "generalization": "no edit of the sample has a paraphrase",
    "locality": "there are no locality probes or names like the subjects about which a pass proves the answer",
    "capability": "there are no unrelated prompts whose answer a pass proves",
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
    """The sample's training rows (edits, then what is kept) and questions.

    Attributes:
        edits: how many of the rows are edits.
        share: of all edits that the sample is.
        notes: what cannot be measured, and why; a sentence each.
    """

    training: tuple[Encoded, ...]
    edits: int
    share: float
    questions: tuple[Question, ...]
    notes: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Names what is trained and asked."""
        return digest_value(to_json(self))

    @property
    def rows(self) -> list[Encoded]:
        """Training rows, then questions."""
        return [*self.training, *(question.row for question in self.questions)]


def make_exam(
    loaded: LoadedModel,
    edits: Sequence[EditRequest],
    settings: Settings,
    size: int,
    progress: Callable[[str], None] | None = None,
) -> Exam:
    """A seeded sample of `size` edits with prompts to keep, and the questions; `progress` is told what comes next.

    Kept are protected prompts, and the sample's questions about names like its subjects. Where edits have no probes,
    others of these questions are asked in their place. Prompts for `capability` are other protected ones, or, where the
    settings protect none, locality probes of edits outside the sample, or general questions. As in training, nothing
    is kept that is, or nearly is, a text that is asked or held out.
    """
    tell = progress or (lambda note: None)
    generator = random.Random(settings.training.seed)
    chosen = set(generator.sample(range(len(edits)), size))
    sample = [edit for index, edit in enumerate(with_subjects(edits)[0]) if index in chosen]
    tell("names like the subjects")
    held = held_out(edits, find_canaries(loaded, edits, settings))
    with remembered(loaded, settings) as memory:  # an edit run asks for the same names
        near = _near(loaded, edits, sample, held, memory, KEPT * size + ASKED)
    settings = replace(settings, evaluation=_brief(settings.evaluation))
    share = size / len(edits)
    protected = unasked(listed_requests(settings), held, HeldOut(edit.prompt for edit in edits))
    generator.shuffle(protected)
    aside = min(ASKED, len(protected) // 4)
    trained = protected[aside:][: min(round(len(protected) * share), KEPT * size)]
    unrelated = protected[:aside] or _other_probes(edits, sample) or _general(edits, generator)
    probes = [
        (number, EditRequest(edit.id, probe.prompt, probe.target))
        for number, edit in enumerate(sample)
        for probe in edit.locality[:EACH]
    ]
    if not probes:
        probes, near = [(-1, request) for request in near[1::2][:ASKED]], near[::2]
    if settings.training.neighbours:
        trained += near[: KEPT * size]
    trained = unasked(trained, HeldOut(request.prompt for request in (*unrelated, *(probe for _, probe in probes))))
    tell("what the model says to prompts that should keep their answers")
    requests = [*trained, *unrelated, *(probe for _, probe in probes)]
    with remembered(loaded, settings) as memory:
        answered = answered_rows(loaded, requests, settings, memory)
    kept = [
        *(
            Question("locality", number, row)
            for (number, _), row in _pairs(probes, answered[len(answered) - len(probes) :])
        ),
        *(Question("capability", -1, row) for _, row in _pairs(unrelated, answered[len(trained) :])),
    ]
    tell("which of its answers a pass proves")
    chat = settings.edits.chat_template
    asked = [
        *(
            Question("reliability" if prompt == edit.prompt else "generalization", number, row)
            for number, edit in enumerate(sample)
            for prompt in dict.fromkeys((edit.prompt, *edit.paraphrases[:EACH]))
            for row in [encode_edit(loaded.tokenizer, prompt, edit.target, chat)]
        ),
        *provable(loaded, kept, settings),
    ]
    known = {question.metric for question in asked}
    notes = [f"{name} is unknown: {why}" for name, why in ABSENT.items() if name not in known]
    notes += told_silent(answered, "prompts whose answers should stay; these are neither kept nor measured")
    rows = [question.row for question in asked if question.metric == "reliability"]
    return Exam(
        (*rows, *(row for row in answered[: len(trained)] if row)), len(rows), share, tuple(asked), tuple(notes)
    )


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
    return Exam(training, value["edits"], value["share"], tuple(questions), notes)


def _brief(evaluation: EvaluationSettings) -> EvaluationSettings:
    """Answers no longer than an exam looks at."""
    return replace(evaluation, max_new_tokens=min(TOKENS, evaluation.max_new_tokens))


def _near(
    loaded: LoadedModel,
    edits: Sequence[EditRequest],
    sample: Sequence[EditRequest],
    held: HeldOut,
    memory: Memory,
    most: int,
) -> list[EditRequest]:
    """The sample's questions about names like its subjects, the most alike first, each edit's in turn; none that an
    edit sets, or that is held out or nearly so."""
    put = [(template, edit.subject) for edit in sample if (template := template_of(edit)) and edit.subject]
    names = similar_names(loaded, [subject for _, subject in put], memory) if put else []
    turns = zip_longest(
        *([fill(template, name) for name in own] for (template, _), own in zip(put, names, strict=True))
    )
    own = {edit.prompt for edit in edits}
    texts = dict.fromkeys(text for turn in turns for text in turn if text and text not in own)
    free = (text for text in texts if held.twin(text) is None)
    return [EditRequest("near", text, "") for text in islice(free, most)]


def _general(edits: Sequence[EditRequest], generator: random.Random) -> list[EditRequest]:
    """General questions that come along, about none of the edits' subjects."""
    edited = Edited(edits)
    free = [one for one in read_questions() if not edited.names(one.subject)]
    chosen = generator.sample(free, min(ASKED, len(free)))
    return [EditRequest("general", one.wordings[0], one.target) for one in chosen]


def _other_probes(edits: Sequence[EditRequest], sample: Sequence[EditRequest]) -> list[EditRequest]:
    """Locality probes of edits outside the sample that the sample does not ask."""
    asked = HeldOut(prompt for edit in sample for prompt in asked_prompts(edit))
    inside = {edit.id for edit in sample}
    others = {
        probe.prompt: EditRequest(edit.id, probe.prompt, probe.target)
        for edit in edits
        if edit.id not in inside
        for probe in edit.locality
    }
    return list(islice((other for other in others.values() if asked.twin(other.prompt) is None), ASKED))


def _pairs(requests: Sequence[Any], rows: Sequence[Encoded | None]) -> list[tuple[Any, Encoded]]:
    """Requests with their rows, where the model says anything."""
    return [(request, row) for request, row in zip(requests, rows, strict=False) if row is not None]
