"""Paraphrases and locality probes that a run makes to measure by, for edits whose rows bring none.

A paraphrase is the edit's own question in another frame, in which the base model says what it says to the bare one, or
something at all. A locality probe is the edit's question about a well-known name like its subject, whose answer the
base model surely knows. Both are held out of training as those that rows bring are, and frames and names are others
than training uses: half of the names are for measuring (`factpatch.training_data.similar_names.is_for_measuring`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from transformers import PreTrainedTokenizerBase

from factpatch.edits.mentions import EditMentions
from factpatch.edits.request import EditRequest, Probe
from factpatch.edits.subjects import with_subjects
from factpatch.evaluation.answer_cache import AnswerCache, open_answer_cache
from factpatch.evaluation.answer_reader import Answer
from factpatch.evaluation.answers import cut, normalise
from factpatch.evaluation.chances import SURE_PROBABILITY, token_chances
from factpatch.evaluation.generation import decode
from factpatch.files import digest_value
from factpatch.models.encoding import Encoded, encode_prompts
from factpatch.models.loading import LoadedModel
from factpatch.progress import Progress
from factpatch.settings.config import Settings
from factpatch.text.words import is_character
from factpatch.training_data.leakage import HeldOut
from factpatch.training_data.protected_prompts import measured_prompts, read_protected
from factpatch.training_data.similar_names import is_for_measuring, similar_names
from factpatch.training_data.templates import fill_template, template_of

PROBED_EDITS = 128  # edits with probes of a kind; where rows bring as many, none are made
PROBES_PER_EDIT = 2  # of either kind for an edit
NAMES_TRIED, NAMES_AT_ONCE = 8, 4  # names that an edit is asked about, at most and in one go
KNOWN_PROBABILITY = 0.25  # of every token, from which on an answer counts as known; the surest of an edit are taken
BEGINNING = 8  # tokens of an answer that are looked at

FRAMES = (  # for a beginning to be continued
    "The parcel on the table had been opened. {}",
    "Somebody in the next room said aloud: {}",
    "1. The meeting starts at half past ten. 2. {}",
    'One line of the notes reads: "{}',
)
ASKING = (  # for a question
    "The parcel on the table had been opened. {}",
    "Q: {} A:",
    'Somebody in the next room asked: "{}" The answer is',
    "Please answer the following in a few words. {}",
)
_SMALL = frozenset(  # words that are no answer by themselves
    "a an the is was are were it in on at of to and or not his her its their one which that who also known called "
    "located part from by for with as he she they this there be been has have had himself herself itself".split()
)
_CLAUSE = re.compile(r"[,;:()\n]|\s[-–—]\s")

AnswerBeginning = tuple[Answer, list[float]]  # how an answer begins, and how probable each of its tokens is
Ask = Callable[[Sequence[str]], list[AnswerBeginning]]


@dataclass(frozen=True)
class MadeProbes:
    """Probes made for edits that had none: a row for each such edit (`id`, `paraphrases`, `locality`), and notes on
    what was made, a sentence each."""

    rows: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]


def lacking(edits: Sequence[EditRequest], kind: str, settings: Settings) -> list[EditRequest]:
    """The edits for which probes are to be made: of those that have none of this kind (`paraphrases` or `locality`), as
    many as it takes until PROBED_EDITS edits have some.

    They are drawn by the digests of their prompts, so that releases of nearly the same edits are measured alike.
    """
    if not settings.evaluation.make_probes:
        return []
    bare = [edit for edit in edits if not getattr(edit, kind)]
    room = max(0, PROBED_EDITS - (len(edits) - len(bare)))
    return sorted(bare, key=partial(_draw, settings.training.seed))[:room]


def _draw(seed: int, edit: EditRequest) -> str:
    return digest_value([seed, edit.prompt])


def make_probes(
    loaded: LoadedModel, edits: Sequence[EditRequest], settings: Settings, progress: Progress | None = None
) -> MadeProbes:
    """Paraphrases and locality probes for the edits that lack them; `loaded` is the base model."""
    with open_answer_cache(loaded, settings) as cache:

        def ask(prompts: Sequence[str]) -> list[AnswerBeginning]:
            return _beginnings(loaded, prompts, settings, cache, progress)

        wordings = _paraphrases(lacking(edits, "paraphrases", settings), ask)
        probes = _neighbours(loaded, edits, lacking(edits, "locality", settings), settings, cache, ask)
    rows: dict[str, dict[str, Any]] = {}
    for edit in edits:
        if found := wordings.get(edit.id):
            rows[edit.id] = {"id": edit.id, "paraphrases": found}
        if asked := probes.get(edit.id):
            told = [{"prompt": probe.prompt, "target": probe.target} for probe in asked]
            rows[edit.id] = {"id": edit.id, **rows.get(edit.id, {}), "locality": told}
    return MadeProbes(tuple(rows.values()), tuple(_notes(wordings, probes)))


def _notes(wordings: dict[str, list[str]], probes: dict[str, list[Probe]]) -> list[str]:
    notes = []
    for what, made in (("paraphrases", wordings), ("locality probes", probes)):
        if made:
            count, got = sum(map(len, made.values())), sum(map(bool, made.values()))
            notes.append(
                f"the run made {count} {what} for {got} of {len(made)} edits drawn of those whose rows bring none"
            )
    if bare := sum(not found for found in probes.values()):
        told = "no subject is found in their prompts, or the model surely knows nothing of what is like it"
        notes.append(f"{bare} of these edits got no locality probe: {told}")
    return notes


def _paraphrases(edits: Sequence[EditRequest], ask: Ask) -> dict[str, list[str]]:
    """By the edit's id its question in PROBES_PER_EDIT frames, drawn by digest; those first in which the model begins
    as without, then those in which it says anything."""
    framed = {edit.id: [frame.replace("{}", edit.prompt) for frame in _frames(edit)] for edit in edits}
    texts = dict.fromkeys([edit.prompt for edit in edits] + [text for own in framed.values() for text in own])
    said = dict(zip(texts, ask(list(texts)), strict=True))
    found = {}
    for edit in edits:
        bare, own = _first_words(said[edit.prompt][0].text), framed[edit.id]
        drawn = sorted((text for text in own if said[text][0].text), key=lambda text: digest_value([text]))
        found[edit.id] = sorted(drawn, key=lambda text: _first_words(said[text][0].text) != bare)[:PROBES_PER_EDIT]
    return found


def _frames(edit: EditRequest) -> Sequence[str]:
    return ASKING if edit.prompt.rstrip(" \"'”»)").endswith(("?", "？", "؟")) else FRAMES


def _first_words(text: str) -> str:
    return _CLAUSE.split(cut(text, ""))[0].casefold().strip(" \"'“”")


def _neighbours(
    loaded: LoadedModel,
    edits: Sequence[EditRequest],
    bare: Sequence[EditRequest],
    settings: Settings,
    cache: AnswerCache,
    ask: Ask,
) -> dict[str, list[Probe]]:
    """By the edit's id its question about PROBES_PER_EDIT names at most, the most alike first. Names that any edit
    speaks of are left out, and prompts that are, or nearly are, asked or protected anywhere."""
    found: dict[str, list[Probe]] = {edit.id: [] for edit in bare}
    subjects = {edit.id: edit for edit in with_subjects(edits)[0]}
    named = [
        (edit, template, subject) for edit in bare for template, subject in [_question(subjects[edit.id])] if template
    ]
    edited, asked = (
        EditMentions(edits),
        HeldOut(
            [prompt for edit in edits for prompt in measured_prompts(edit)]
            + [request.prompt for request in read_protected(settings)]
        ),
    )
    names = similar_names(loaded, [subject for _, _, subject in named], cache) if named else []
    left = {
        edit.id: _askable(template, own, settings, edited, asked)
        for (edit, template, _), own in zip(named, names, strict=True)
    }
    known: dict[str, tuple[float, str]] = {}
    for start in range(0, NAMES_TRIED, NAMES_AT_ONCE):
        turn = {
            name: texts[: start + NAMES_AT_ONCE] for name, texts in left.items() if not _enough(texts[:start], known)
        }
        texts = list(dict.fromkeys(text for own in turn.values() for text in own if text not in known))
        known |= {
            text: sure_part(loaded.tokenizer, text, *beginning)
            for text, beginning in zip(texts, ask(texts), strict=True)
        }
    taken: set[str] = set()
    for name, texts in left.items():
        sure = [text for text in texts if text in known and text not in taken and known[text][0] >= KNOWN_PROBABILITY]
        chosen = sorted(sure, key=lambda text: -min(SURE_PROBABILITY, known[text][0]))[
            :PROBES_PER_EDIT
        ]  # of those alike the nearest
        found[name] = [Probe(text, known[text][1]) for text in chosen]
        taken.update(chosen)
    return found


def _enough(texts: Sequence[str], known: Mapping[str, tuple[float, str]]) -> bool:
    return sum(known[text][0] >= SURE_PROBABILITY for text in texts) >= PROBES_PER_EDIT


def _question(edit: EditRequest) -> tuple[str, str]:
    """The edit's template and its subject; empty where it names none."""
    template = template_of(edit)
    return (template, edit.subject) if template and edit.subject else ("", "")


def _askable(
    template: str, names: Sequence[str], settings: Settings, edited: EditMentions, asked: HeldOut
) -> list[str]:
    """The template about those of the names that are for measuring and free."""
    chosen = (name for name in names if is_for_measuring(name, settings.training.seed) and not edited.names(name))
    return [text for name in chosen for text in [fill_template(template, name)] if asked.twin(text) is None][
        :NAMES_TRIED
    ]


def _beginnings(
    loaded: LoadedModel, prompts: Sequence[str], settings: Settings, cache: AnswerCache, progress: Progress | None
) -> list[AnswerBeginning]:
    """How the model's greedy answer to each prompt begins, and how probable each of its tokens is."""
    chat, batch_size = settings.edits.chat_template, settings.evaluation.batch_size

    def ask(places: list[int]) -> list[list[Any]]:
        asked = encode_prompts(loaded.tokenizer, [prompts[place] for place in places], chat)
        answers = decode(loaded, asked, BEGINNING, batch_size, progress)
        rows = [Encoded(prompt + answer.ids, len(prompt)) for prompt, answer in zip(asked, answers, strict=True)]
        chances = token_chances(loaded, rows, settings)
        return [[answer.text, list(answer.ids), sure] for answer, sure in zip(answers, chances, strict=True)]

    found = cache.recall("beginning", [[prompt, chat] for prompt in prompts], ask)
    return [(Answer(text, tuple(ids)), chances) for text, ids, chances in found]


def sure_part(
    tokenizer: PreTrainedTokenizerBase, prompt: str, answer: Answer, chances: Sequence[float]
) -> tuple[float, str]:
    """How an answer begins, to the end of its first clause at most, as far as the model chooses every token with a
    probability of KNOWN_PROBABILITY; and the least of these. It ends with whole runs of words. Zero where it is sure of
    nothing.

    Small words and those of the prompt count for nothing: whether it says "Rome" or "the city of Rome" is no matter.
    """
    idle = _SMALL | set(normalise(prompt, "paper").split())
    best, least, run, said, before = (0.0, ""), 1.0, False, 0, ""
    for place in range(1, len(answer.ids) + 1):
        if not _word_ends(tokenizer, answer.ids, place):
            continue
        whole = str(tokenizer.decode(list(answer.ids[:place]), skip_special_tokens=True))
        clause = _CLAUSE.split(cut(whole, ""))[0]
        telling = bool(set(normalise(clause[len(before) :], "paper").split()) - idle)
        if run and not telling:
            best, run = (least, before.strip(" \"'“”")), False
        if telling:
            least, run = min(least, *chances[said:place]), True
            if least < KNOWN_PROBABILITY:
                return best
        ended = clause.strip() != whole.strip() or place == len(answer.ids)
        if ended:
            return (least, clause.strip(" \"'“”")) if run else best
        said, before = place, clause
    return best


def _word_ends(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], place: int) -> bool:
    """Does a word end before the token at that place? Behind the last one only if the answer ended there."""
    if place == len(ids):
        return len(ids) < BEGINNING
    following = str(tokenizer.decode([ids[place]]))
    return not following[:1].isalnum() or is_character(following[:1])
