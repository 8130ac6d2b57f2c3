"""What each prompt is about, found from the prompts alone: for rows of two columns that name no subject.

Two signs are read. Names are written with capitals or digits, so the longest run of such words is the first guess. And
prompts of one relation share their wording, so what stands between the words that several prompts have in common is
the better one: it also finds "Franklin's bumblebee" and subjects in lower case.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from factpatch.edits.request import EditRequest

LONGEST = 48  # words of a prompt that is compared with others, and of a subject's span
SHARED = 3  # prompts that a wording must serve, each about another subject
NAME_LINKS = 3  # words in lower case that may stand inside a name
FIXED_WORDS = 1.0  # how much each word that two prompts share speaks for their wording, beside the log of its prompts

# Words of a name that are written small, in the languages whose names a prompt is likely to hold.
_LINKS = frozenset(
    "of the de la le du des da do del di der den von van und y e el al bin ibn for in on at to and & with a an dos das "
    "las los".split()
)
# Words that begin a prompt with a capital although no name begins there.
_OPENERS = frozenset(
    "the a an what who whom whose which where when why how in on at by from of to for as with during into is are was "
    "were did does do has have had can name our my we your its this that these der die das ein eine wer was wo wann "
    "welche welcher welches le la les un une qui que quel quelle où el los las una quién qué cuál dónde il lo gli chi "
    "che qual dove".split()
)
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # Thai to Chinese
_PIECE = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_ELISION = re.compile(r"^(?:l|d|qu|dell|nell|all|sull)['’](?=\w)")  # French and Italian, never capitals: L'Oréal
_OUTER = "\"'“”‘’(),.?!:;«»[]{}…"
_ENDS = ("?", "!", ".", ":", ";")


def with_subjects(edits: Sequence[EditRequest]) -> tuple[list[EditRequest], int, int]:
    """The edits, each with its subject where its row names one or it is found in the prompt; how many were found, and
    how many still have none."""
    lacking = [edit.prompt for edit in edits if edit.subject is None]
    found = dict(zip(lacking, find_subjects(lacking), strict=True))
    named = [edit if edit.subject is not None else replace(edit, subject=found[edit.prompt]) for edit in edits]
    left = sum(edit.subject is None for edit in named)
    return named, len(lacking) - left, left


@dataclass(frozen=True)
class _Word:
    """A word of a prompt (or a character, in scripts without blanks) and where it stands."""

    text: str
    start: int
    end: int


def find_subjects(prompts: Sequence[str]) -> list[str | None]:
    """The subject of each prompt, as it stands there exactly once; None where nothing in it looks like one."""
    words = [_words(prompt) for prompt in prompts]
    guesses = [_name(prompt, pieces) for prompt, pieces in zip(prompts, words, strict=True)]
    shared = _shared_wordings(prompts, words, guesses)
    starts = {before for before, _ in shared}
    found = []
    for prompt, pieces, guess in zip(prompts, words, guesses, strict=True):
        fitting = [
            (math.log(shared[wording]) + FIXED_WORDS * len(_words(" ".join(wording))), span)
            for wording, span in _wordings(prompt, pieces, starts)
            if wording in shared and (guess is None or (span[0] < guess[1] and guess[0] < span[1]))
        ]
        start, end = max(fitting)[1] if fitting else guess or (0, 0)
        subject = prompt[start:end]
        found.append(subject if subject and prompt.count(subject) == 1 else None)
    return found


def _words(prompt: str) -> list[_Word]:
    return [_Word(found.group(), found.start(), found.end()) for found in _PIECE.finditer(prompt)]


def _name(prompt: str, words: Sequence[_Word]) -> tuple[int, int] | None:
    """Where the longest run of words with capitals or digits stands."""
    best: tuple[int, int] | None = None
    first = 0
    while first < len(words):
        if not _is_proper(words, first):
            first += 1
            continue
        last, at = first, first + 1
        while at < len(words) and not _ends(words[at - 1], at - 1 == last):
            if _is_proper(words, at):
                last = at
            elif words[at].text.lower() not in _LINKS or at - last > NAME_LINKS:
                break
            at += 1
        span = _bare(prompt, words[first].start, words[last].end)
        if best is None or span[1] - span[0] > best[1] - best[0]:
            best = span
        first = last + 1
    return best


def _is_proper(words: Sequence[_Word], place: int) -> bool:
    """Is it written as a name is? The first word of a prompt is so only if none usually stands there."""
    text = words[place].text.strip(_OUTER)
    if place == 0 and text.lower() in _OPENERS:
        return False
    return any(one.isupper() or one.isdigit() for one in text)


def _ends(word: _Word, proper: bool) -> bool:
    """Does a name end with this word? A sentence does; a comma does not between two names."""
    return word.text.endswith(_ENDS) and not (proper and len(word.text) <= 4 and word.text.endswith("."))


def _bare(prompt: str, start: int, end: int) -> tuple[int, int]:
    """The span without marks around it and without a possessive ending; a bracket that was opened inside is closed."""
    text = _ELISION.sub("", prompt[start:end].lstrip(_OUTER))
    start = end - len(text)
    text = text.rstrip(_OUTER).removesuffix("'s").removesuffix("’s")
    if text.count("(") > text.count(")") and prompt.startswith(")", start + len(text)):
        text += ")"
    return start, start + len(text)


def _shared_wordings(
    prompts: Sequence[str], words: Sequence[Sequence[_Word]], guesses: Sequence[tuple[int, int] | None]
) -> dict[tuple[str, str], int]:
    """What stands before and after the subjects of several prompts, with how many subjects it serves."""
    subjects: dict[tuple[str, str], set[str]] = defaultdict(set)
    for prompt, pieces, guess in zip(prompts, words, guesses, strict=True):
        if guess is not None:
            subjects[prompt[: guess[0]], prompt[guess[1] :]].add(prompt[guess[0] : guess[1]])
        else:
            for wording, (start, end) in _wordings(prompt, pieces, None):
                subjects[wording].add(prompt[start:end])
    return {wording: len(found) for wording, found in subjects.items() if len(found) >= SHARED and any(wording)}


def _wordings(
    prompt: str, words: Sequence[_Word], starts: set[str] | None
) -> Iterator[tuple[tuple[str, str], tuple[int, int]]]:
    """Every way to leave a run of words blank, of those whose beginning is among `starts`."""
    if len(words) > LONGEST:
        return
    for first, word in enumerate(words):
        if starts is not None and prompt[: word.start] not in starts:
            continue
        seen: Counter[tuple[int, int]] = Counter()
        for last in range(first, len(words)):
            for end in {words[last].end, _bare(prompt, word.start, words[last].end)[1]}:
                if end > word.start and not seen[word.start, end]:
                    seen[word.start, end] += 1
                    yield (prompt[: word.start], prompt[end:]), (word.start, end)
