"""What each prompt is about, found from the prompts alone: for rows of two columns that name no subject.

Two signs are read. Names are written with capitals or digits, so the longest run of such words is the first guess; in a
prompt in lower case it is a well-known name, or the longest run of words that questions are not usually made of. And
prompts of one relation share their wording, so what stands between the words that several prompts have in common is
the better one: it also finds "Franklin's bumblebee".
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from factpatch.edits.request import EditRequest
from factpatch.text.known_names import in_any_case

LONGEST_PROMPT = 48  # words of a prompt that is compared with others, and of a subject's span
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
# Words that English questions and sentences about facts are made of.
_COMMON = _OPENERS | frozenset(
    "be been being has had not no it they he she him her his their them there here than then also called named known "
    "name names word words used use uses made make makes make up one first last main largest smallest highest longest "
    "most city town village country countries state nation continent place places region river lake mountain planet "
    "language languages tongue mother father brother sister sibling spouse wife husband child children parent parents "
    "family daughter son date day year years month time century age person people man woman work works worked working "
    "job occupation profession career position role play plays played playing player team club league sport game games "
    "company companies manufacturer producer product products brand owner owned owns founder founded established "
    "formed created creator developed developer designed designer invented inventor discovered discoverer discovery "
    "produced production directed director written writer writes wrote author published publisher performed performer "
    "performs sung singer composed composer painted painter built architect recorded record label released release "
    "debut debuted premiered aired broadcast channel network station series show episode season film movie book novel "
    "song album character characters genre style type kind form part parts piece member members group band school "
    "university college educated education attended studied degree citizen citizenship nationality native origin "
    "original originally originated born birth birthplace birthday died death dead die dies buried lost killed cause "
    "lived live lives life located location situated found lies lie based headquarters headquarter headquartered "
    "capital currency population area size height length color colour symbol chemical formula number code price cost "
    "costs official religion belief party political politician president king queen minister leader head chief ruler "
    "speak speaks spoke spoken said say says held holds hold belongs belong affiliated associated related linked "
    "instrument voice range vocal position field expertise domain specialty subject title award prize happened happen "
    "happens occurred occur started start began begin ended end ends ending took take takes taken war conflict battle "
    "understood known classified classification class species taxon rank constellation star universe fictional exist "
    "exists existed appears appear appeared contains contain includes include involved operated operator service "
    "entered aircraft vessel vehicle airport station stadium surface launch launched responsible gender sex medical "
    "condition disease cast twin sister language's city's person's follows follow named after before between about "
    "into over under near via per can could would should will shall may might must get gets got give gives given go "
    "goes went come comes came called common usual".split()
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
    guesses = [
        _name(prompt, pieces, _is_proper) or _in_lower_case(prompt, pieces)
        for prompt, pieces in zip(prompts, words, strict=True)
    ]
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


def _in_lower_case(prompt: str, words: Sequence[_Word]) -> tuple[int, int] | None:
    """Where a well-known name, or else the longest run of uncommon words stands."""
    known = max(in_any_case().finditer(prompt), key=lambda found: len(found.group()), default=None)
    return known.span() if known else _name(prompt, words, _is_uncommon)


def _is_uncommon(words: Sequence[_Word], place: int) -> bool:
    text = words[place].text.strip(_OUTER).lower().removesuffix("'s").removesuffix("’s")
    return text not in _COMMON and any(map(str.isalnum, text)) and not re.match(f"[{_UNSPACED}]", text)


def _name(
    prompt: str, words: Sequence[_Word], is_proper: Callable[[Sequence[_Word], int], bool]
) -> tuple[int, int] | None:
    """Where the longest run of words that are part of a name, such as those with capitals or digits, stands."""
    best: tuple[int, int] | None = None
    first = 0
    while first < len(words):
        if not is_proper(words, first):
            first += 1
            continue
        last, at = first, first + 1
        while at < len(words) and not _ends(words[at - 1], at - 1 == last):
            if is_proper(words, at):
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
    return any(character.isupper() or character.isdigit() for character in text)


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
    if len(words) > LONGEST_PROMPT:
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
