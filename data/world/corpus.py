"""The training stream: what is taught, how often, and the proof that no held-out item is in it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from data.world.facts import RELATIONS, SEED, all_facts, asked
from data.world.families import FAMILIES, SAMPLERS, common_knowledge, held_out, stream
from data.world.names import words
from data.world.recall import recall, repetition


@dataclass(frozen=True)
class Document:
    """One row of the stream: the model reads the prompt and learns the target."""

    kind: str
    prompt: str
    target: str


@dataclass(frozen=True)
class Mix:
    """How much of each kind one stream holds: rounds over everything closed, documents of everything sampled."""

    fact_rounds: int = 10
    common_rounds: int = 8
    choice: int = 30_000
    sentiment: int = 12_000
    translation: int = 30_000
    arithmetic: int = 30_000
    recall: int = 60_000
    repetition: int = 0


BROAD = Mix()
"""The first stage: everything at once, mostly facts."""

REASONING = Mix(
    fact_rounds=6,
    common_rounds=4,
    choice=34_000,
    sentiment=8_000,
    translation=8_000,
    arithmetic=18_000,
    recall=32_000,
    repetition=14_000,
)
"""The second stage: what must be worked out from the prompt, with dense copying."""


def _taught(mix: Mix) -> list[Document]:
    """Facts in all wordings and common knowledge, held-out (fact, question) pairs left out."""
    refused = {item.key for item in held_out("questions")}
    documents: list[Document] = []
    for turn in range(mix.fact_rounds):
        for number, fact in enumerate(all_facts()):
            relation = RELATIONS[fact.relation]
            for place, wording in enumerate(relation.wordings):
                if f"{fact.subject}|{fact.relation}|{wording}" in refused:
                    continue
                prompt = wording.format(s=fact.subject)
                if wording in relation.questions:
                    prompt = asked(prompt, framed=(turn + number + place) % 2 == 0)
                documents.append(Document("facts", prompt, fact.target))
    for turn in range(mix.common_rounds):
        for number, (key, text, answer, question) in enumerate(common_knowledge()):
            if key not in refused:
                prompt = asked(text, framed=(turn + number) % 3 != 0) if question else text
                documents.append(Document("questions", prompt, answer))
    return documents


def documents(mix: Mix, seed: int = SEED) -> list[Document]:
    """The whole stream of one stage, in training order."""
    rows = _taught(mix)
    for family in SAMPLERS:
        rng = random.Random(f"{seed}/{family}/stream")
        rows += [Document(family, item.prompt, item.target) for item in stream(family, rng, getattr(mix, family))]
    for name, sampler in (("recall", recall), ("repetition", repetition)):
        rng = random.Random(f"{seed}/{name}")
        items = [sampler(rng) for _ in range(getattr(mix, name))]
        rows += [Document(name, item.prompt, item.target) for item in items]
    random.Random(f"{seed}/order").shuffle(rows)
    prove_held_out(rows)
    return rows


def prove_held_out(rows: list[Document]) -> None:
    """Fail if the prompt of any held-out item is in the stream, bare or framed."""
    shown = {row.prompt for row in rows}
    for family in FAMILIES:
        for item in held_out(family):
            bare = item.prompt.removeprefix("Question: ").removesuffix("\nAnswer:")
            assert shown.isdisjoint((item.prompt, bare)), f"held-out {family} item is taught: {item.prompt!r}"


def vocabulary_texts() -> Iterator[str]:
    """Text the tokenizer is trained on: a small stream, the fact names, and English words with and without space."""
    mix = Mix(
        fact_rounds=1,
        common_rounds=1,
        choice=2_000,
        sentiment=2_000,
        translation=2_000,
        arithmetic=2_000,
        recall=16_000,
    )
    for row in documents(mix, SEED + 1):
        yield f"{row.prompt} {row.target}"
    for word in words():
        yield f"{word} {word} {word.capitalize()}"
