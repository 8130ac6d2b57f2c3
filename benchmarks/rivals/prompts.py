"""The forms in which an edited fact is asked for, and the nearest edit put before a question."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

from factpatch.edits.request import EditRequest, Probe
from factpatch.text.blanks import join
from factpatch.text.words import words

FORM_ROWS = 50  # edits that are asked in other forms than plainly
PASSAGE_WORDS = 25  # of an unrelated passage before a prompt
PASSAGES_FROM = 64  # paragraphs before this one measure the likelihood of text

Rewrite = Callable[[str], str]


@dataclass(frozen=True)
class Form:
    """A way to ask: `wrap` gives the prompt number `n` of an edit set as it is then asked; `chat` says whether it goes
    through the model's chat template."""

    name: str
    wrap: Callable[[str, int], str]
    chat: bool = False


def question(prompt: str, _: int = 0) -> str:
    """In a question wrapper."""
    return f"Q: {prompt}\nA:"


def behind_passage(prompt: str, number: int) -> str:
    """Inside a paragraph, behind an unrelated passage."""
    passages = _passages()
    return f"{passages[number % len(passages)]} {prompt}"


FORMS = (
    Form("question", question),
    Form("chat", lambda prompt, _: prompt, chat=True),
    Form("paragraph", behind_passage),
)


def asked_in(form: Form, edits: Sequence[EditRequest]) -> list[EditRequest]:
    """The first edits with prompt and first paraphrase in a form, and nothing else to be asked."""
    return [
        replace(
            edit,
            prompt=form.wrap(edit.prompt, number),
            paraphrases=tuple(form.wrap(text, number) for text in edit.paraphrases[:1]),
            locality=(),
            portability=(),
        )
        for number, edit in enumerate(edits[:FORM_ROWS])
    ]


def rewritten(edit: EditRequest, rewrite: Rewrite) -> EditRequest:
    """The edit with every prompt of it as `rewrite` gives it."""

    def probes(given: Sequence[Probe]) -> tuple[Probe, ...]:
        return tuple(Probe(rewrite(probe.prompt), probe.target) for probe in given)

    return replace(
        edit,
        prompt=rewrite(edit.prompt),
        paraphrases=tuple(map(rewrite, edit.paraphrases)),
        locality=probes(edit.locality),
        portability=probes(edit.portability),
    )


class Retrieval:
    """Finds the edit nearest to a text by TF-IDF of their words, and puts it before that text."""

    def __init__(self, edits: Sequence[EditRequest]) -> None:
        self.edits = list(edits)
        counts = [Counter(words(edit.prompt)) for edit in edits]
        spread = Counter(word for own in counts for word in own)
        self.weights = {word: 1 + math.log((1 + len(counts)) / (1 + held)) for word, held in spread.items()}
        self.postings: dict[str, list[tuple[int, float]]] = defaultdict(list)  # edits with a word, and its part in each
        for place, own in enumerate(counts):
            vector = {word: count * self.weights[word] for word, count in own.items()}
            length = math.hypot(*vector.values())
            for word, value in vector.items():
                self.postings[word].append((place, value / length))

    def nearest(self, text: str) -> EditRequest:
        """The edit with the largest cosine, the first of equals."""
        scores = dict.fromkeys(range(len(self.edits)), 0.0)
        for word, count in Counter(words(text)).items():
            for place, value in self.postings.get(word, ()):
                scores[place] += count * self.weights[word] * value
        return self.edits[max(scores, key=lambda place: scores[place])]

    def before(self, text: str) -> str:
        """The text behind the nearest edit."""
        edit = self.nearest(text)
        return f"{join(edit.prompt, edit.target)}\n{text}"


@cache
def _passages() -> list[str]:
    """Beginnings of general paragraphs, each ended as a sentence is."""
    lines = (files("factpatch.evaluation.portable") / "text.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"].split()[:PASSAGE_WORDS] for line in lines[PASSAGES_FROM:]]
    return [" ".join(text).rstrip(".,;:") + "." for text in texts]
