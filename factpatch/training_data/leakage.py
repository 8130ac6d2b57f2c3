"""What is measured is never trained: finding held-out texts, and near-duplicates of them, among texts to train on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from factpatch.edits.request import EditRequest
from factpatch.errors import RefusedError
from factpatch.text.words import content_words, is_character

SHINGLE_WORDS, SHINGLE_CHARACTERS = 3, 6  # of a shingle; characters in scripts that write no blanks
NEAR_DUPLICATE_SHARE = 0.8  # share of shingles in common (Jaccard) from which on texts are near-duplicates


class HeldOut:
    """Texts to keep out of training, indexed for near-duplicates.

    Two texts are near-duplicates if, articles left out, one holds all shingles (runs of three words, or of six
    characters in scripts that write no blanks; shorter texts count as one run) of the other, or they share four fifths
    of them.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = list(dict.fromkeys(text for text in texts if content_words(text)))
        self._shingles = [shingles(text) for text in self._texts]
        self._where: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for number, held in enumerate(self._shingles):
            for shingle in held:
                self._where[shingle].append(number)
        self._rarest: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for number, held in enumerate(self._shingles):
            self._rarest[min(held, key=self._count)].append(number)

    def twin(self, text: str) -> str | None:
        """The held-out text for whose sake this one must not be trained, as it is the same, a near-duplicate, or one is
        part of the other; None if there is none."""
        own = shingles(text)
        if not own:
            return None
        for number in self._candidates(own):
            held = self._shingles[number]
            common = len(own & held)
            if common == min(len(own), len(held)) or common >= NEAR_DUPLICATE_SHARE * len(own | held):
                return self._texts[number]
        return None

    def _candidates(self, own: frozenset[tuple[str, ...]]) -> Iterable[int]:
        """Those that may be twins: what shares four fifths with a text shares one of its rarest fifth, and what is held
        in it has its own rarest shingle there."""
        rare = sorted(sorted(own), key=self._count)[: len(own) - int(NEAR_DUPLICATE_SHARE * len(own)) + 1]
        found = {number for shingle in rare for number in self._where.get(shingle, ())}
        return sorted(found | {number for shingle in own for number in self._rarest.get(shingle, ())})

    def _count(self, shingle: tuple[str, ...]) -> int:
        return len(self._where.get(shingle, ()))


def held_out(edits: Sequence[EditRequest], canaries: Sequence[EditRequest] = ()) -> HeldOut:
    """Paraphrases, locality and portability probes of the edits, and canaries. An edit's own prompt is trained, so it
    is not held out where another edit's probe repeats it."""
    own = {" ".join(content_words(edit.prompt)) for edit in edits}
    texts = [canary.prompt for canary in canaries]
    for edit in edits:
        texts += [*edit.paraphrases, *(probe.prompt for probe in (*edit.locality, *edit.portability))]
    return HeldOut(text for text in texts if " ".join(content_words(text)) not in own)


def unasked(requests: Iterable[EditRequest], *texts: HeldOut) -> list[EditRequest]:
    """The requests that may be trained: those whose prompts are no held-out text, nor nearly one."""
    return [request for request in requests if all(held.twin(request.prompt) is None for held in texts)]


def check_leakage(trained: Iterable[str], held: HeldOut) -> int:
    """How many texts were checked; RefusedError if one of them is held out, or nearly so."""
    texts = list(trained)
    for text in texts:
        twin = held.twin(text)
        if twin is not None:
            raise RefusedError(
                f"training would see a text that is measured: {text!r} is, or nearly is, {twin!r}; nothing was trained"
            )
    return len(texts)


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Runs of three words of the text, or six characters; of a shorter text, all of it."""
    found = content_words(text)
    length = SHINGLE_CHARACTERS if 2 * sum(map(is_character, found)) > len(found) else SHINGLE_WORDS
    if len(found) <= length:
        return frozenset({found}) if found else frozenset()
    return frozenset(found[start : start + length] for start in range(len(found) - length + 1))
