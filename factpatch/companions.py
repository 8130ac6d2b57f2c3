"""What is trained beside the edits' own prompts: further wordings of them, and what the model is to keep saying."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from factpatch.answered import remembered
from factpatch.augmentation import augment, plain_text, sample_texts
from factpatch.blanks import join
from factpatch.config import Settings
from factpatch.edits.request import EditRequest, Wording
from factpatch.encoding import Encoded, encode_pairs
from factpatch.errors import InputError
from factpatch.evaluation.canaries import find_canaries
from factpatch.files import digest_value
from factpatch.inheritance import NOTHING, Inheritance
from factpatch.leakage import HeldOut, check_leakage, held_out, unasked
from factpatch.models import LoadedModel
from factpatch.neighbours import neighbours, still_neighbours
from factpatch.own_texts import own_question_rows, own_text_rows
from factpatch.protection import answered_rows, listed_requests, told_silent
from factpatch.rewording import reword
from factpatch.similar import measures, similar_names
from factpatch.subjects import with_subjects
from factpatch.tokenization import notes as tokenizer_notes
from factpatch.wordings import Wordings, find_wordings

PREFIXES = 64  # unrelated beginnings of each source
SAMPLED = 256  # texts of the model's own where nothing else is kept
OWN_TEXTS, OWN_QUESTIONS = 48, 32  # that are kept beside neighbours: what lies far from the edits
KEPT_TOKENS = 8  # of an answer that is kept or compared, at most: longer ones cost more and say little more
AGAIN = 2560  # inherited wordings, and as many inherited neighbours, that an increment verifies and keeps at most


@dataclass(frozen=True)
class Companions:
    """Rows that join an edit run.

    Attributes:
        wordings: the edits in further wordings.
        kept: prompts with the base model's own answers.
        checked: texts that were compared with everything held out.
        notes: what was left out or is missing, a sentence each.
        bequest: the texts of wordings and neighbours that hold for the edits, inherited ones among them.
    """

    wordings: tuple[Encoded, ...] = ()
    kept: tuple[Encoded, ...] = ()
    checked: int = 0
    notes: tuple[str, ...] = ()
    bequest: Inheritance = NOTHING


def find_companions(
    loaded: LoadedModel,
    edits: Sequence[EditRequest],
    settings: Settings,
    settled: Sequence[EditRequest] = (),
    inherited: Inheritance = NOTHING,
    withdrawn: Sequence[str] = (),
) -> Companions:
    """All of it as the settings ask, in an order drawn by seed; RefusedError if a text is held out or nearly so.

    `settled` are further edits that an earlier release learnt, with what is `inherited` from it. They get no wordings
    and no neighbours anew, so that a release costs what is new in it; and nothing that they say or hold out is kept or
    trained. Of what is inherited, as much as AGAIN is drawn. Prompts that edits once had and that were `withdrawn` are
    kept too, without those held out by now.
    """
    training = settings.training
    notes = tokenizer_notes(loaded.tokenizer, settings.edits.chat_template or training.both_forms)
    if training.method == "depth-first":
        return Companions(notes=tuple(notes))
    edits, found, lacking = with_subjects(edits)
    everything = [*settled, *edits]  # so that what was asked about them before is asked again, and known
    held = held_out(everything, find_canaries(loaded, everything, settings))
    listed, edited = listed_requests(settings), HeldOut(edit.prompt for edit in everything)
    file = unasked(listed, held, edited)
    gone = unasked([EditRequest("withdrawn", prompt, "") for prompt in withdrawn], held, edited)
    notes += _dropped(training.protect, len(listed) - len(file))
    if listed and not file:
        raise InputError(f"training.protect '{training.protect}' keeps nothing; name other prompts, or set it to null")
    grouped = training.wordings > 0 or training.neighbours > 0
    brief = _briefly(settings)
    with remembered(loaded, settings) as memory:
        wordings = find_wordings(loaded, everything, brief, memory) if grouped else Wordings((), {})
        left = _still_good(inherited, settings, settled, everything, wordings, held)
        again = _drawn(left, settings, edits)
        near = neighbours(
            edits,
            file,
            wordings,
            held,
            settings,
            loaded.tokenizer,
            settled,
            left.neighbours,
            lambda subjects: _names_to_train(similar_names(loaded, subjects, memory), everything, training.seed),
        )
        kept = [*file, *near, *(EditRequest("neighbour", text, "") for text in again.neighbours)]
        rows = answered_rows(loaded, [*kept, *gone], brief, memory)
        sampled = own_question_rows(loaded, OWN_QUESTIONS, held, brief, memory) if training.neighbours else []
        reworded, told = reword(loaded, edits, settings, memory) if training.wordings else ({}, [])
    notes += told
    if wordings.silent:
        asked = f"the base model says nothing to {wordings.silent} of {wordings.asked_first} prompts"
        notes.append(f"{asked} by which wordings are compared")
    notes += told_silent(rows, "prompts that were to be kept")
    answered = [(request, row) for request, row in zip(kept, rows[: len(kept)], strict=True) if row]
    if training.neighbours:
        count = OWN_TEXTS if answered else min(SAMPLED, max(1, round(training.neighbours * len(edits))))
        sampled += own_text_rows(loaded, count, held, settings)
    if sampled and not answered:
        notes.append(f"nothing to keep was found, so {len(sampled)} texts of the model's own are kept")
    taken = {edit.prompt for edit in everything}
    further = augment(edits, wordings, reworded, _prefixes(loaded, answered, settings), settings, held, taken)
    if training.wordings and not any(text.kind == "template" for text in further):
        notes.append("no further wordings: the edits' prompts name no subject, or no two of them ask the same")
    if grouped:
        notes += _subjects_told(found, lacking)
    trained = [*further, *again.wordings]
    said = [text.prompt for text in trained if text.kind != "form"]  # an edit's own prompt is trained in any case
    checked = check_leakage([*said, *(request.prompt for request, _ in answered)], held)
    guards = [row for _, row in answered] + sampled
    random.Random(training.seed).shuffle(guards)
    guards += [row for row in rows[len(kept) :] if row]
    bequest = _bequest(left, further, near, settings, everything)
    return Companions(_encode(loaded, trained), tuple(guards), checked, tuple(notes), bequest)


def _briefly(settings: Settings) -> Settings:
    """The settings with answers of KEPT_TOKENS at most."""
    own = settings.evaluation
    return replace(settings, evaluation=replace(own, max_new_tokens=min(KEPT_TOKENS, own.max_new_tokens)))


def _names_to_train(names: list[list[str]], edits: Sequence[EditRequest], seed: int) -> list[list[str]]:
    """Of the names those that no run asks about to measure, where this one made probes."""
    if not any("locality" in edit.made for edit in edits):
        return names
    return [[name for name in own if not measures(name, seed)] for own in names]


def _subjects_told(found: int, lacking: int) -> list[str]:
    """What became of prompts whose rows name no subject."""
    notes = [f"the subjects of {found} prompts were found in them, as their rows name none"] if found else []
    if lacking:
        told = "so nothing guards what lies near; add a 'subject' to their rows"
        notes.append(f"no subject is named with {lacking} prompts, or found in them, {told}")
    return notes


def _encode(loaded: LoadedModel, texts: Sequence[Wording]) -> tuple[Encoded, ...]:
    """In their order; many at once, which is far sooner done."""
    rows: dict[Wording, Encoded] = {}
    for chat in {text.chat for text in texts}:
        own = [text for text in texts if text.chat is chat]
        pairs = [(text.prompt, text.target) for text in own]
        rows |= zip(own, encode_pairs(loaded.tokenizer, pairs, chat), strict=True)
    return tuple(rows[text] for text in texts)


def _still_good(
    inherited: Inheritance,
    settings: Settings,
    settled: Sequence[EditRequest],
    everything: Sequence[EditRequest],
    wordings: Wordings,
    held: HeldOut,
) -> Inheritance:
    """What of it the settings still ask for, is about settled edits, and nothing holds out or asks by now."""
    facts, own = {(edit.prompt, edit.target) for edit in settled}, {edit.prompt for edit in everything}
    said = [
        one
        for one in inherited.wordings
        if _asked_for(one, settings)
        and (one.of, one.target) in facts
        and (one.kind == "form" or (one.prompt not in own and held.twin(one.prompt) is None))
    ]
    near = inherited.neighbours if settings.training.neighbours else ()
    return Inheritance(tuple(said), tuple(still_neighbours(near, everything, wordings, held)))


def _asked_for(one: Wording, settings: Settings) -> bool:
    """Do the settings ask for wordings of that kind?"""
    training = settings.training
    other_form = training.both_forms and one.chat is not settings.edits.chat_template
    return bool({"form": other_form, "prefix": training.prefixes, "template": training.wordings}[one.kind])


def _drawn(left: Inheritance, settings: Settings, edits: Sequence[EditRequest]) -> Inheritance:
    """AGAIN of each; others for other edits."""
    generator = random.Random(digest_value([settings.training.seed, [edit.prompt for edit in edits]]))
    said = generator.sample(left.wordings, min(AGAIN, len(left.wordings)))
    near = generator.sample(left.neighbours, min(AGAIN, len(left.neighbours)))
    return Inheritance(tuple(said), tuple(near))


def _bequest(
    left: Inheritance,
    further: Sequence[Wording],
    near: Sequence[EditRequest],
    settings: Settings,
    everything: Sequence[EditRequest],
) -> Inheritance:
    """What these edits leave: no more neighbours than were made if all were new."""
    texts = [*(request.prompt for request in near), *left.neighbours]
    most = min(len(texts), round(settings.training.neighbours * len(everything)))
    return Inheritance((*further, *left.wordings), tuple(random.Random(settings.training.seed).sample(texts, most)))


def _dropped(path: str | None, count: int) -> list[str]:
    if not count:
        return []
    return [f"{count} prompts of training.protect '{path}' are left out: an edit, a probe or a canary asks them"]


def _prefixes(loaded: LoadedModel, answered: Sequence[tuple[EditRequest, Encoded]], settings: Settings) -> list[str]:
    """Unrelated beginnings: kept prompts with their answers, and texts of the model's own."""
    if not settings.training.prefixes:
        return []
    seed = settings.training.seed
    chosen = random.Random(seed).sample(list(answered), min(PREFIXES, len(answered)))
    said = [join(request.prompt, plain_text(loaded, row.ids[row.prompt_length :])) for request, row in chosen]
    return [f"{text}." for text in said] + sample_texts(loaded, PREFIXES, seed)
