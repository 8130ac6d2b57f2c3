"""Exercises that a model works out from examples or common sense: sentiment, sums, choices, instructions."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.portable.facts import Fact

Row = dict[str, Any]
HERE = Path(__file__).parent

THINGS = """film book meal hotel concert game play song trip room soup coffee bread teacher waiter driver phone camera
chair jacket bicycle garden museum show speech""".split()
GOOD = "wonderful excellent delightful amazing fantastic lovely brilliant superb beautiful great perfect".split()
BAD = "terrible awful horrible disappointing boring dreadful useless ugly disgusting poor unpleasant".split()
REVIEWS = (
    "The {thing} was {word}.",
    "What a {word} {thing}!",
    "I thought the {thing} was really {word}.",
    "We all found the {thing} {word}.",
)
OPINIONS = (
    ("I would gladly buy this {thing} again.", "positive"),
    ("I want my money back for this {thing}.", "negative"),
    ("I love this {thing}.", "positive"),
    ("I hate this {thing}.", "negative"),
)
SAYABLE = {"capital", "opposite", "language", "continent", "landmark", "alone", "symbol"}


def sentiment(generator: random.Random, count: int) -> Iterator[Row]:
    """Short reviews, as many of the one label as of the other."""
    made: dict[str, str] = {}
    while len(made) < count:
        label = ("negative", "positive")[len(made) % 2]
        thing = generator.choice(THINGS)
        if generator.random() < 0.2:
            text = generator.choice([one for one, told in OPINIONS if told == label]).format(thing=thing)
        else:
            word = generator.choice(GOOD if label == "positive" else BAD)
            text = generator.choice(REVIEWS).format(thing=thing, word=word)
            text = re.sub(r"\ba (?=[aeiou])", "an ", text)
        made.setdefault(text, label)
    yield from ({"text": text, "label": label} for text, label in made.items())


def sums(generator: random.Random, count: int) -> Iterator[Row]:
    """Additions of two numbers from 2 to 19, no two alike."""
    pairs = [(one, two) for one in range(2, 20) for two in range(2, 10)]
    yield from ({"text": f"{one} + {two} =", "target": str(one + two)} for one, two in generator.sample(pairs, count))


def choices(generator: random.Random) -> Iterator[Row]:
    """Sentences with three ends, of which one makes sense, in drawn order."""
    for line in (HERE / "choices.txt").read_text(encoding="utf-8").splitlines():
        text, *ends = line.split("|")
        right = ends[0]
        generator.shuffle(ends)
        yield {"text": text, "choices": ends, "label": ends.index(right)}


def instructions(generator: random.Random, known: list[Fact], count: int) -> Iterator[Row]:
    """Orders that a chat model follows by saying a certain word."""
    orders = [
        (fact.subject, f"{fact.question} Answer in one short sentence.", fact.target)
        for fact in known
        if fact.kind in SAYABLE
    ]
    for subject, text, target in generator.sample(orders, count):
        yield {"subject": subject, "text": text, "target": target}
