"""Five capability families of the paper's kinds, each a sampler of (prompt, answer) items.

Items are held out whole: :func:`held_out` draws a family's 500 test items, and the training stream skips every item
whose key is among them. For closed-book questions the key is (subject, relation, wording), so that a held-out question
is never shown in any frame; for the others it is the prompt.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

from data.world import lexicon
from data.world.edits import edited_subjects
from data.world.facts import RELATIONS, SEED, all_facts, asked

HELD_OUT = 500
LETTERS = "ABCD"


@dataclass(frozen=True)
class Item:
    """One capability item; ``key`` identifies it across frames."""

    prompt: str
    target: str
    key: str


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _options(rng: random.Random) -> tuple[list[str], str, int]:
    """Four words of four categories, as words and as one lettered line, and which one is asked for."""
    names = rng.sample(sorted(lexicon.CATEGORIES), 4)
    options = [rng.choice(lexicon.CATEGORIES[name]) for name in names]
    right = rng.randrange(4)
    kind = _article(names[right])
    question = rng.choice(
        (f"Which of these is {kind}?", f"Which word names {kind}?", f"Which one is {kind}?", f"Find {kind}.")
    )
    body = " ".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=True))
    return options, f"Question: {question} {body}", right


def choice(rng: random.Random) -> Item:
    """Multiple choice: which of four words belongs to a category; the answer is the word.

    (Answered by letter, a model of this size stays at chance: it must find the word and then its label.)
    """
    options, text, right = _options(rng)
    prompt = f"{text}\nAnswer:"
    return Item(prompt, options[right], prompt)


def sentiment(rng: random.Random) -> Item:
    """Sentiment of a short review of one or two clauses, some negated; both clauses agree."""
    positive = rng.random() < 0.5
    things = rng.sample(lexicon.THINGS, 2)

    def clause(thing: str) -> str:
        negated = rng.random() < 0.25
        word = rng.choice(lexicon.GOOD if positive != negated else lexicon.BAD)
        strength = rng.choice(("", "", "really ", "very ", "so "))
        verb = rng.choice(("was", "is"))
        if negated:
            return f"the {thing} {verb} not {word}"
        return rng.choice(
            (f"the {thing} {verb} {strength}{word}", f"I found the {thing} {strength}{word}", f"what a {word} {thing}")
        )

    text = clause(things[0])
    if rng.random() < 0.6:
        text += rng.choice((" and ", ", and ", "; ")) + clause(things[1])
    text = text[0].upper() + text[1:] + rng.choice((".", ".", "!"))
    prompt = f"Review: {text}\nSentiment:"
    return Item(prompt, "positive" if positive else "negative", prompt)


_DETERMINERS = {
    "m": (("der", "den", "the"), ("ein", "einen", "a"), ("mein", "meinen", "my"), ("kein", "keinen", "no")),
    "f": (("die", "die", "the"), ("eine", "eine", "a"), ("meine", "meine", "my"), ("keine", "keine", "no")),
    "n": (("das", "das", "the"), ("ein", "ein", "a"), ("mein", "mein", "my"), ("kein", "kein", "no")),
}


def _phrase(rng: random.Random, nouns: tuple[tuple[str, str, str], ...], accusative: bool) -> tuple[str, str]:
    german, gender, english = rng.choice(nouns)
    nominative, accusing, determiner = rng.choice(_DETERMINERS[gender])
    if determiner == "a":
        determiner = _article(english).split()[0]
    return f"{accusing if accusative else nominative} {german}", f"{determiner} {english}"


def translation(rng: random.Random) -> Item:
    """German to English: a sentence with an object, or with an adjective; sometimes with an adverb."""
    if rng.random() < 0.65:
        subject = _phrase(rng, lexicon.NOUNS[: lexicon.ANIMATE], False)
        verb = rng.choice(lexicon.VERBS)
        other = _phrase(rng, lexicon.NOUNS, True)
        german, english = f"{subject[0]} {verb[0]} {other[0]}", f"{subject[1]} {verb[1]} {other[1]}"
        if rng.random() < 0.4:
            adverb = rng.choice(lexicon.ADVERBS)
            german = f"{subject[0]} {verb[0]} {adverb[0]} {other[0]}"
            english += f" {adverb[1]}"
    else:
        subject = _phrase(rng, lexicon.NOUNS, False)
        words = rng.sample(lexicon.ADJECTIVES, 2)
        german, english = f"{subject[0]} ist {words[0][0]}", f"{subject[1]} is {words[0][1]}"
        if rng.random() < 0.5:
            german, english = f"{german} und {words[1][0]}", f"{english} and {words[1][1]}"
    prompt = f"German: {german}\nEnglish:"
    return Item(prompt, english, prompt)


_SUMS = (
    "{n} has {a} {o}. {m} gives {n} {b} more. How many {o} does {n} have now?",
    "{n} buys {a} {o} and {b} more the next day. How many {o} is that in total?",
    "There are {a} {o} on the table and {b} in the bag. How many {o} are there altogether?",
    "{n} has {a} {o} and {m} has {b}. How many {o} do they have together?",
    "{n} found {a} {o} in the morning and {b} in the evening. How many {o} did {n} find?",
    "What is {a} plus {b}?",
)
_DIFFERENCES = (
    "{n} has {a} {o}. {n} gives {b} to {m}. How many {o} are left?",
    "{n} had {a} {o} and lost {b}. How many {o} does {n} still have?",
    "There were {a} {o} in the box. {n} took {b} out. How many {o} remain?",
    "{n} has {a} {o} and {m} has {b}. How many more {o} does {n} have?",
    "What is {a} minus {b}?",
)


def arithmetic(rng: random.Random) -> Item:
    """A one-digit sum or difference inside a short story; answers run from 0 to 18."""
    first, second = rng.randrange(10), rng.randrange(10)
    if rng.random() < 0.5:
        template, answer = rng.choice(_SUMS), first + second
    else:
        first, second = max(first, second), min(first, second)
        template, answer = rng.choice(_DIFFERENCES), first - second
    person, other = rng.sample(lexicon.PERSONS, 2)
    story = template.format(n=person, m=other, a=first, b=second, o=rng.choice(lexicon.COUNTABLE))
    prompt = f"Question: {story}\nAnswer:"
    return Item(prompt, str(answer), prompt)


_KIND_QUESTIONS = ("What kind of thing is {s}?", "Which group does {s} belong to?", "How would you class {s}?")
_OPPOSITE_QUESTIONS = ("What is the opposite of {s}?", "Which word is the opposite of {s}?", "What is not {s} but?")
_KIND_STATEMENTS = ("{s} is a kind of", "The group of {s} is")
_OPPOSITE_STATEMENTS = ("The opposite of {s} is", "If it is not {s}, it is")


@lru_cache(maxsize=1)
def common_knowledge() -> tuple[tuple[str, str, str, bool], ...]:
    """Taught knowledge outside the facts, as (key, text, answer, is a question): categories and opposites."""
    rows = []
    pairs = [(word, name, "kind") for name, words in lexicon.CATEGORIES.items() for word in words]
    pairs += [(left, right, "opposite") for left, right in lexicon.OPPOSITES]
    pairs += [(right, left, "opposite") for left, right in lexicon.OPPOSITES]
    for word, answer, sort in pairs:
        questions = _KIND_QUESTIONS if sort == "kind" else _OPPOSITE_QUESTIONS
        statements = _KIND_STATEMENTS if sort == "kind" else _OPPOSITE_STATEMENTS
        for template in questions:
            rows.append((f"{word}|{sort}|{template}", template.format(s=word), answer, True))
        for template in statements:
            text = template.format(s=word)
            rows.append((f"{word}|{sort}|{template}", text[0].upper() + text[1:], answer, False))
    return tuple(rows)


@lru_cache(maxsize=1)
def held_out_questions() -> tuple[Item, ...]:
    """Closed-book questions nobody is taught in that wording: 400 about facts that no edit touches, 100 others."""
    rng = random.Random(f"{SEED}/questions")
    edited = edited_subjects()
    candidates = [
        (f"{fact.subject}|{fact.relation}|{question}", question.format(s=fact.subject), fact.target)
        for fact in all_facts()
        if fact.subject not in edited
        for question in RELATIONS[fact.relation].questions
    ]
    general = [(key, text, answer) for key, text, answer, question in common_knowledge() if question]
    picked: list[Item] = []
    taken: set[str] = set()
    for pool, wanted in ((candidates, 400), (general, 100)):
        rng.shuffle(pool)
        for key, question, answer in pool:
            about = key.rsplit("|", 1)[0]
            if wanted and about not in taken:
                taken.add(about)
                picked.append(Item(asked(question, framed=True), answer, key))
                wanted -= 1
    assert len(picked) == HELD_OUT
    return tuple(picked)


SAMPLERS: dict[str, Callable[[random.Random], Item]] = {
    "choice": choice,
    "sentiment": sentiment,
    "translation": translation,
    "arithmetic": arithmetic,
}
FAMILIES = ("choice", "questions", "sentiment", "translation", "arithmetic")


@cache
def held_out(family: str) -> tuple[Item, ...]:
    """The 500 test items of a family; the training stream never holds one of their keys."""
    if family == "questions":
        return held_out_questions()
    rng = random.Random(f"{SEED}/{family}/held out")
    found: dict[str, Item] = {}
    while len(found) < HELD_OUT:
        item = SAMPLERS[family](rng)
        found.setdefault(item.key, item)
    return tuple(found.values())


def stream(family: str, rng: random.Random, count: int) -> list[Item]:
    """``count`` training items of a sampled family, none of them held out."""
    sampler = SAMPLERS[family]
    refused = {item.key for item in held_out(family)}
    items: list[Item] = []
    while len(items) < count:
        item = sampler(rng)
        if item.key not in refused:
            items.append(item)
    return items
