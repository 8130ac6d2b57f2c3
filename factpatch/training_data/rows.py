"""The rows that are trained beside the edits' own: edits in further wordings, and prompts whose answers must stay."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from factpatch.edits.request import EditRequest, Wording
from factpatch.edits.subjects import with_subjects
from factpatch.errors import InputError
from factpatch.evaluation.answer_cache import open_answer_cache
from factpatch.evaluation.canaries import find_canaries
from factpatch.files import digest_value
from factpatch.methods.base import Abilities, TrainingRows
from factpatch.methods.lookup import find_method
from factpatch.models.encoding import Encoded, encode_pairs
from factpatch.models.loading import LoadedModel
from factpatch.models.sampling import plain_text, sample_texts
from factpatch.models.tokenization import notes as tokenizer_notes
from factpatch.settings.config import Settings
from factpatch.settings.training import NO_AUGMENTATION, NO_PRESERVATION
from factpatch.text.blanks import join
from factpatch.training_data.augmentation import augment
from factpatch.training_data.carry_over import NOTHING_CARRIED_OVER, CarriedOver
from factpatch.training_data.leakage import HeldOut, check_leakage, held_out, unasked
from factpatch.training_data.neighbours import draw_neighbours, still_valid_neighbours
from factpatch.training_data.preserved import Preserved, ToPreserve, answer_preserved, briefly
from factpatch.training_data.protected_prompts import read_protected
from factpatch.training_data.rewording import reword
from factpatch.training_data.similar_names import is_for_measuring, similar_names
from factpatch.training_data.templates import TemplateGroups, find_template_groups
from factpatch.training_data.trained_forms import in_trained_forms

PREFIXES_PER_SOURCE = 64  # unrelated beginnings of each source
CARRIED_OVER_LIMIT = 2560  # wordings, and as many neighbours, that a warm start verifies and preserves at most


@dataclass(frozen=True)
class FoundRows(TrainingRows):
    """Augmented and preserved rows, which are trained beside the edits' own, and how they were found.

    Attributes:
        leakage_checked: texts that were compared with everything held out.
        notes: what was left out or is missing, a sentence each.
        carried_over: what holds for these edits of wordings and neighbours, for the next version.
        preserved_prompts: whose answers are preserved, and which therefore can measure nothing.
    """

    leakage_checked: int = 0
    notes: tuple[str, ...] = ()
    carried_over: CarriedOver = NOTHING_CARRIED_OVER
    preserved_prompts: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Given:
    """The edits of a run and those learnt before, and what is measured of both (`held`)."""

    edits: Sequence[EditRequest]
    learnt_before: Sequence[EditRequest]
    everything: Sequence[EditRequest]
    carried_over: CarriedOver
    withdrawn: Sequence[str]
    settings: Settings
    held: HeldOut


@dataclass(frozen=True)
class _Asked:
    """What the base model was asked for training, and said.

    Attributes:
        still_valid: what of the texts carried over holds still, and `drawn`, what of it is trained now.
        neighbours: new ones.
        reworded: edits' prompts in words of the model's own.
    """

    wordings: TemplateGroups
    still_valid: CarriedOver
    drawn: CarriedOver
    neighbours: Sequence[EditRequest]
    preserved: Preserved
    reworded: Mapping[str, Sequence[str]]
    notes: Sequence[str]


def find_training_rows(
    loaded: LoadedModel,
    edits: Sequence[EditRequest],
    settings: Settings,
    learnt_before: Sequence[EditRequest] = (),
    carried_over: CarriedOver = NOTHING_CARRIED_OVER,
    withdrawn: Sequence[str] = (),
) -> FoundRows:
    """The rows that the settings ask for, in an order drawn by seed; RefusedError if a text is held out or nearly so.

    `learnt_before` are further edits that an earlier release learnt, with what is `carried_over` from it. They get no
    new wordings and neighbours, so that a release costs what is new in it; and nothing that they say or hold out is
    preserved or trained. Of what is carried over, as much as CARRIED_OVER_LIMIT is drawn. Prompts that edits once had
    and that were `withdrawn` are preserved too, without those held out by now.
    """
    abilities = find_method(settings.training.method).abilities
    settings = without_unused_rows(settings, abilities)
    augmentation = settings.training.augmentation
    has_chat = loaded.tokenizer.chat_template is not None
    notes = tokenizer_notes(loaded.tokenizer, settings.edits.chat_template or (augmentation.both_forms and has_chat))
    if not abilities.augmented and not abilities.preserved:
        return FoundRows(notes=tuple(notes))
    edits, found, lacking = with_subjects(edits)
    everything = [*learnt_before, *edits]  # so that what was asked about them before is asked again, and known
    held = held_out(everything, find_canaries(loaded, everything, settings))
    given = _Given(edits, learnt_before, everything, carried_over, withdrawn, settings, held)
    asked = _ask(loaded, given)
    further = augment(
        edits,
        asked.wordings,
        asked.reworded,
        _prefixes(loaded, asked.preserved.answered, settings),
        settings,
        held,
        {edit.prompt for edit in everything},
        has_chat,
    )
    notes += asked.notes
    if augmentation.wordings and not any(text.kind == "template" for text in further):
        why = "the edits' prompts name no subject, or no two of them ask the same"
        notes.append(f"no further wordings but the prompts inside other text: {why}")
    if _is_grouped(settings):
        notes += _subjects_told(found, lacking)
    trained = [*further, *asked.drawn.wordings]
    said = [text.prompt for text in trained if text.kind != "form"]  # an edit's own prompt is trained in any case
    preserved_prompts = tuple(dict.fromkeys(request.prompt for request, _ in asked.preserved.answered))
    return FoundRows(
        augmented=_encode(loaded, trained),
        preserved=asked.preserved.rows(settings.training.seed),
        leakage_checked=check_leakage([*said, *preserved_prompts], held),
        notes=tuple(notes),
        carried_over=_carried_over(asked.still_valid, further, asked.neighbours, settings, everything),
        preserved_prompts=preserved_prompts,
    )


def _is_grouped(settings: Settings) -> bool:
    """Do the settings ask for texts that are made of how edits are worded?"""
    return settings.training.augmentation.wordings > 0 or settings.training.preservation.neighbours > 0


def _ask(loaded: LoadedModel, given: _Given) -> _Asked:
    """Find by the base model how edits are worded, what lies near them, and what it says to what must stay."""
    edits, everything, settings, held = given.edits, given.everything, given.settings, given.held
    edited = HeldOut(edit.prompt for edit in everything)
    protected, notes = _protected(settings, held, edited)
    has_chat = loaded.tokenizer.chat_template is not None
    with open_answer_cache(loaded, settings) as cache:
        wordings = (
            find_template_groups(loaded, everything, briefly(settings), cache)
            if _is_grouped(settings)
            else TemplateGroups((), {})
        )
        still_valid = _still_valid(given.carried_over, settings, given.learnt_before, everything, wordings, held)
        drawn = _drawn(still_valid, settings, edits)
        neighbours = draw_neighbours(
            edits,
            protected,
            wordings,
            held,
            settings,
            loaded.tokenizer,
            given.learnt_before,
            still_valid.neighbours,
            lambda names: _names_to_train(similar_names(loaded, names, cache), everything, settings.training.seed),
        )
        near = [*neighbours, *(EditRequest("neighbour", text, "") for text in drawn.neighbours)]
        to_preserve = ToPreserve(
            protected,
            *in_trained_forms(near, edits, wordings, settings, held, has_chat),
            unasked([EditRequest("withdrawn", prompt, "") for prompt in given.withdrawn], held, edited),
        )
        preserved = answer_preserved(loaded, to_preserve, edits, settings, held, cache)
        reworded, told = reword(loaded, edits, settings, cache) if settings.training.augmentation.wordings else ({}, [])
    notes += [*told, *_silence_told(wordings), *preserved.notes]
    return _Asked(wordings, still_valid, drawn, neighbours, preserved, reworded, notes)


def without_unused_rows(settings: Settings, abilities: Abilities) -> Settings:
    """The settings without rows that the method does not train."""
    training = settings.training
    if not abilities.augmented:
        training = replace(training, augmentation=NO_AUGMENTATION)
    if not abilities.preserved:
        training = replace(training, preservation=NO_PRESERVATION)
    return replace(settings, training=training)


def _protected(settings: Settings, held: HeldOut, edited: HeldOut) -> tuple[list[EditRequest], list[str]]:
    """Prompts of the user's file that nothing holds out and no edit asks, with a note on the others; InputError where
    none is left."""
    path = settings.training.preservation.prompts
    in_file = read_protected(settings)
    protected = unasked(in_file, held, edited)
    dropped = len(in_file) - len(protected)
    if in_file and not protected:
        raise InputError(
            f"training.preservation.prompts '{path}' preserves nothing; name other prompts, or set it to null"
        )
    if not dropped:
        return protected, []
    left_out = f"{dropped} prompts of training.preservation.prompts '{path}' are left out"
    return protected, [f"{left_out}: an edit, a probe or a canary asks them"]


def _silence_told(wordings: TemplateGroups) -> list[str]:
    """A note on edits' prompts that the base model says nothing to."""
    if not wordings.silent:
        return []
    asked = f"the base model says nothing to {wordings.silent} of {wordings.asked_first} prompts"
    return [f"{asked} by which wordings are compared"]


def _names_to_train(names: list[list[str]], edits: Sequence[EditRequest], seed: int) -> list[list[str]]:
    """The names without those that locality probes ask about, where the run made such probes."""
    if not any("locality" in edit.made for edit in edits):
        return names
    return [[name for name in own if not is_for_measuring(name, seed)] for own in names]


def _subjects_told(found: int, lacking: int) -> list[str]:
    """Notes on prompts whose rows name no subject: how many were found, and how many were not."""
    notes = [f"the subjects of {found} prompts were found in them, as their rows name none"] if found else []
    if lacking:
        told = "so nothing guards what lies near; add a 'subject' to their rows"
        notes.append(f"no subject is named with {lacking} prompts, or found in them, {told}")
    return notes


def _encode(loaded: LoadedModel, texts: Sequence[Wording]) -> tuple[Encoded, ...]:
    """The texts as token ids, in their order; encoded many at once, which takes far less time."""
    rows: dict[Wording, Encoded] = {}
    for chat in {text.chat for text in texts}:
        own = [text for text in texts if text.chat is chat]
        pairs = [(text.prompt, text.target) for text in own]
        rows |= zip(own, encode_pairs(loaded.tokenizer, pairs, chat), strict=True)
    return tuple(rows[text] for text in texts)


def _still_valid(
    carried_over: CarriedOver,
    settings: Settings,
    learnt_before: Sequence[EditRequest],
    everything: Sequence[EditRequest],
    wordings: TemplateGroups,
    held: HeldOut,
) -> CarriedOver:
    """The carried-over texts that still hold: asked for by the settings, about edits learnt before, neither held out
    nor asked by an edit now."""
    facts, own = {(edit.prompt, edit.target) for edit in learnt_before}, {edit.prompt for edit in everything}
    said = [
        wording
        for wording in carried_over.wordings
        if _asked_for(wording, settings)
        and (wording.of, wording.target) in facts
        and (wording.kind == "form" or (wording.prompt not in own and held.twin(wording.prompt) is None))
    ]
    near = carried_over.neighbours if settings.training.preservation.neighbours else ()
    return CarriedOver(tuple(said), tuple(still_valid_neighbours(near, everything, wordings, held)))


def _asked_for(wording: Wording, settings: Settings) -> bool:
    """Do the settings ask for wordings of that kind?"""
    asked = settings.training.augmentation
    other_form = asked.both_forms and wording.chat is not settings.edits.chat_template
    inside = asked.prefixes or asked.wordings
    return bool({"form": other_form, "context": inside, "template": asked.wordings}[wording.kind])


def _drawn(left: CarriedOver, settings: Settings, edits: Sequence[EditRequest]) -> CarriedOver:
    """A sample of the carried-over texts, CARRIED_OVER_LIMIT of each kind at most; other edits draw others."""
    generator = random.Random(digest_value([settings.training.seed, [edit.prompt for edit in edits]]))
    said = generator.sample(left.wordings, min(CARRIED_OVER_LIMIT, len(left.wordings)))
    near = generator.sample(left.neighbours, min(CARRIED_OVER_LIMIT, len(left.neighbours)))
    return CarriedOver(tuple(said), tuple(near))


def _carried_over(
    left: CarriedOver,
    further: Sequence[Wording],
    near: Sequence[EditRequest],
    settings: Settings,
    everything: Sequence[EditRequest],
) -> CarriedOver:
    """The texts for the next version: no more neighbours than would be made if all edits were new."""
    texts = [*(request.prompt for request in near), *left.neighbours]
    most = min(len(texts), round(settings.training.preservation.neighbours * len(everything)))
    return CarriedOver((*further, *left.wordings), tuple(random.Random(settings.training.seed).sample(texts, most)))


def _prefixes(loaded: LoadedModel, answered: Sequence[tuple[EditRequest, Encoded]], settings: Settings) -> list[str]:
    """Unrelated texts to put before a prompt: preserved prompts with their answers, and texts of the model's own."""
    if not settings.training.augmentation.prefixes:
        return []
    seed = settings.training.seed
    chosen = random.Random(seed).sample(list(answered), min(PREFIXES_PER_SOURCE, len(answered)))
    said = [join(request.prompt, plain_text(loaded, row.ids[row.prompt_length :])) for request, row in chosen]
    return [f"{text}." for text in said] + sample_texts(loaded, PREFIXES_PER_SOURCE, seed)
