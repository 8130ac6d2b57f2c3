"""The trial set: a sample of the edits to train at every place tried, and the questions asked afterwards.

It only tells places apart, so it is small: all its parts are bounded, whatever the edits bring, answers are looked
at up to ANSWER_TOKENS, and the edits are trained in their own wording. A place is measured by verification alone: an
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

from factpatch.edits.mentions import EditMentions
from factpatch.edits.request import EditRequest
from factpatch.edits.subjects import with_subjects
from factpatch.evaluation.answer_cache import AnswerCache, open_answer_cache
from factpatch.evaluation.canaries import find_canaries
from factpatch.evaluation.generation import verify
from factpatch.evaluation.portable import read_questions
from factpatch.files import digest_value
from factpatch.frozen_trunk import open_rows
from factpatch.methods.base import TrainingRows
from factpatch.models.encoding import Encoded, encode_edit
from factpatch.models.loading import LoadedModel
from factpatch.settings.config import EvaluationSettings, Settings
from factpatch.training_data.leakage import HeldOut, held_out, unasked
from factpatch.training_data.protected_prompts import (
    measured_prompts,
    note_on_silent,
    read_protected,
    rows_with_own_answers,
)
from factpatch.training_data.similar_names import similar_names
from factpatch.training_data.templates import fill_template, template_of

ANSWER_TOKENS = 3  # of an answer that are looked at, and kept: what it says is told by its beginning
PROMPTS_PER_EDIT = 2  # paraphrases, and probes, of an edit that are asked at most
PRESERVED_PER_EDIT = 2  # prompts to keep for each edit of the sample, of each source
PROMPTS_ASKED = 32  # at most, of those that stand for locality where there are no probes, and of those for capability
UNMEASURED_REASONS = {
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
class TrialSet:
    """What every place is tried on: the sample's training rows (edits, then preserved ones) and questions.

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
        """Digest of what is trained and asked."""
        return digest_value(to_json(self))

    @property
    def training_rows(self) -> TrainingRows:
        """The training rows by their kind."""
        return TrainingRows(self.training[: self.edits], preserved=self.training[self.edits :])

    @property
    def rows(self) -> list[Encoded]:
        """Training rows, then questions."""
        return [*self.training, *(question.row for question in self.questions)]


def make_trial_set(
    loaded: LoadedModel,
    edits: Sequence[EditRequest],
    settings: Settings,
    size: int,
    progress: Callable[[str], None] | None = None,
) -> TrialSet:
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
    with open_answer_cache(loaded, settings) as cache:  # an edit run asks for the same names
        near = _near(loaded, edits, sample, held, cache, PRESERVED_PER_EDIT * size + PROMPTS_ASKED)
    settings = replace(settings, evaluation=_brief(settings.evaluation))
    share = size / len(edits)
    protected = unasked(read_protected(settings), held, HeldOut(edit.prompt for edit in edits))
    generator.shuffle(protected)
    aside = min(PROMPTS_ASKED, len(protected) // 4)
    trained = protected[aside:][: min(round(len(protected) * share), PRESERVED_PER_EDIT * size)]
    unrelated = protected[:aside] or _other_probes(edits, sample) or _general(edits, generator)
    probes = [
        (number, EditRequest(edit.id, probe.prompt, probe.target))
        for number, edit in enumerate(sample)
        for probe in edit.locality[:PROMPTS_PER_EDIT]
    ]
    if not probes:
        probes, near = [(-1, request) for request in near[1::2][:PROMPTS_ASKED]], near[::2]
    if settings.training.preservation.neighbours:
        trained += near[: PRESERVED_PER_EDIT * size]
    trained = unasked(trained, HeldOut(request.prompt for request in (*unrelated, *(probe for _, probe in probes))))
    tell("what the model says to prompts that should keep their answers")
    requests = [*trained, *unrelated, *(probe for _, probe in probes)]
    with open_answer_cache(loaded, settings) as cache:
        answered = rows_with_own_answers(loaded, requests, settings, cache)
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
            for prompt in dict.fromkeys((edit.prompt, *edit.paraphrases[:PROMPTS_PER_EDIT]))
            for row in [encode_edit(loaded.tokenizer, prompt, edit.target, chat)]
        ),
        *provable(loaded, kept, settings),
    ]
    known = {question.metric for question in asked}
    notes = [f"{name} is unknown: {why}" for name, why in UNMEASURED_REASONS.items() if name not in known]
    notes += note_on_silent(answered, "prompts whose answers should stay; these are neither kept nor measured")
    rows = [question.row for question in asked if question.metric == "reliability"]
    return TrialSet(
        (*rows, *(row for row in answered[: len(trained)] if row)), len(rows), share, tuple(asked), tuple(notes)
    )


def provable(loaded: LoadedModel, questions: Sequence[Question], settings: Settings) -> list[Question]:
    """Those questions whose answer a pass through the model as it is proves."""
    with open_rows(loaded, None, [question.row for question in questions], settings.trunk) as rows:
        verdicts = verify(loaded, rows, settings.evaluation.max_new_tokens, settings.evaluation.batch_size)
    return [question for question, verdict in zip(questions, verdicts, strict=True) if verdict.answer is not None]


def to_json(trial_set: TrialSet) -> dict[str, Any]:
    """The trial set as plain values."""
    return asdict(trial_set)


def from_json(value: dict[str, Any]) -> TrialSet:
    """A trial set from what `to_json` gave and a file kept."""

    def encoded(row: dict[str, Any]) -> Encoded:
        return Encoded(tuple(row["ids"]), row["prompt_length"])

    questions = (
        Question(question["metric"], question["edit"], encoded(question["row"])) for question in value["questions"]
    )
    training = tuple(encoded(row) for row in value["training"])
    notes = tuple(value["notes"])
    return TrialSet(training, value["edits"], value["share"], tuple(questions), notes)


def _brief(evaluation: EvaluationSettings) -> EvaluationSettings:
    """The settings with answers no longer than a trial looks at."""
    return replace(evaluation, max_new_tokens=min(ANSWER_TOKENS, evaluation.max_new_tokens))


def _near(
    loaded: LoadedModel,
    edits: Sequence[EditRequest],
    sample: Sequence[EditRequest],
    held: HeldOut,
    cache: AnswerCache,
    most: int,
) -> list[EditRequest]:
    """The sample's questions about names like its subjects, the most alike first, each edit's in turn; none that an
    edit sets, or that is held out or nearly so."""
    put = [(template, edit.subject) for edit in sample if (template := template_of(edit)) and edit.subject]
    names = similar_names(loaded, [subject for _, subject in put], cache) if put else []
    turns = zip_longest(
        *([fill_template(template, name) for name in own] for (template, _), own in zip(put, names, strict=True))
    )
    own = {edit.prompt for edit in edits}
    texts = dict.fromkeys(text for turn in turns for text in turn if text and text not in own)
    free = (text for text in texts if held.twin(text) is None)
    return [EditRequest("near", text, "") for text in islice(free, most)]


def _general(edits: Sequence[EditRequest], generator: random.Random) -> list[EditRequest]:
    """General questions that come along, about none of the edits' subjects."""
    edited = EditMentions(edits)
    free = [question for question in read_questions() if not edited.names(question.subject)]
    chosen = generator.sample(free, min(PROMPTS_ASKED, len(free)))
    return [EditRequest("general", question.wordings[0], question.target) for question in chosen]


def _other_probes(edits: Sequence[EditRequest], sample: Sequence[EditRequest]) -> list[EditRequest]:
    """Locality probes of edits outside the sample that the sample does not ask."""
    asked = HeldOut(prompt for edit in sample for prompt in measured_prompts(edit))
    inside = {edit.id for edit in sample}
    others = {
        probe.prompt: EditRequest(edit.id, probe.prompt, probe.target)
        for edit in edits
        if edit.id not in inside
        for probe in edit.locality
    }
    return list(islice((other for other in others.values() if asked.twin(other.prompt) is None), PROMPTS_ASKED))


def _pairs(requests: Sequence[Any], rows: Sequence[Encoded | None]) -> list[tuple[Any, Encoded]]:
    """Requests with their rows, where the model says anything."""
    return [(request, row) for request, row in zip(requests, rows, strict=False) if row is not None]
