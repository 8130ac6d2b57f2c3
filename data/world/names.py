"""Varied strings: made-up names, words, numbers, years and dates, in the shapes that real edit sets hold."""

from __future__ import annotations

import random
from functools import lru_cache

from data.world.facts import HERE

_ONSETS = "b c d f g h k l m n p r s t v w b d f k l m n r s t br ch cl dr gr kr sh st th tr j z qu".split()
_ONSETS += [""] * 2
_VOWELS = "a a a e e e i i o o u y ai ea ei ia ou".split()
_CODAS = "n r l s t m ck ng nt x".split()
_CODAS += [""] * 14
_ACCENTS = {"a": "áàâäã", "e": "éèêë", "i": "íî", "o": "óöôø", "u": "úüû", "n": "ñ", "c": "ç", "s": "š", "z": "ž"}
_MONTHS = ("January February March April May June July August September October November December").split()
_GIVEN = (
    "John Mary Robert James Anne William Maria Peter Charles Louis Helen Thomas George Paul Laura Martin David Susan "
    "Henry Alice Richard Frank Marie Karl Jean Elena Ivan Carlos Ahmed Hiroshi Michael Andrew Edward Joseph Daniel"
).split()
_BEFORE = (
    "Mount Lake Fort Port New Saint San Cape North South East West Upper Old Villa Castle El La Los Al De Van"
).split()
_AFTER = (
    "River Creek Island Lake Valley Park Bridge Station Airport Stadium University College School Hospital Museum "
    "Church Cathedral Records Press Studios Motors Corporation Company Group Party League County District "
    "Province Glacier Peninsula Mountains Games Entertainment F.C. United Railway Award Prize Society "
    "Institute Theatre House Hall"
).split()


@lru_cache(maxsize=1)
def words() -> tuple[str, ...]:
    """The common English words of ``words.txt``."""
    return tuple((HERE / "words.txt").read_text(encoding="utf-8").split())


def invented(rng: random.Random) -> str:
    """One made-up capitalised word, spliced from two English words or built of syllables; some have an accent."""
    if rng.random() < 0.5:
        first, second = rng.choice(words()), rng.choice(words())
        text = first[: rng.randrange(2, 5)] + second[-rng.randrange(2, 5) :]
    else:
        parts = rng.choices((1, 2, 3, 4), (2, 6, 3, 1))[0]
        text = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(parts))
    if rng.random() < 0.1:
        place = rng.randrange(len(text))
        if text[place] in _ACCENTS:
            text = text[:place] + rng.choice(_ACCENTS[text[place]]) + text[place + 1 :]
    text = text[0].upper() + text[1:]
    if rng.random() < 0.04:
        text += "-" + invented(rng).split("-")[0]
    if rng.random() < 0.02:
        text = rng.choice(("O'", "Mac", "Mc", "D'")) + text
    return text


def _word(rng: random.Random) -> str:
    return rng.choice(words())


def person(rng: random.Random) -> str:
    """A personal name: given name or invented, sometimes an initial, an invented surname."""
    given = rng.choice(_GIVEN) if rng.random() < 0.5 else invented(rng)
    middle = rng.choice("ABCDEFGHIJKLMNOPRSTVW") + ". " if rng.random() < 0.15 else ""
    last = _word(rng).capitalize() if rng.random() < 0.25 else invented(rng)
    return f"{given} {middle}{last}"


def place(rng: random.Random) -> str:
    """A place, an institution, a work or a firm, one to four words."""
    core = _word(rng).capitalize() if rng.random() < 0.45 else invented(rng)
    form = rng.randrange(8)
    if form == 0:
        return core
    if form == 1:
        return f"{rng.choice(_BEFORE)} {core}"
    if form in (2, 3):
        return f"{core} {rng.choice(_AFTER)}"
    if form == 4:
        return f"{rng.choice(('University', 'Battle', 'Kingdom', 'City', 'House', 'Duke', 'Bank'))} of {core}"
    if form == 5:
        return f"St. {core}'s {rng.choice(('Church', 'School', 'Hospital', 'Cathedral', 'College'))}"
    if form == 6:
        return f"{core} {_word(rng).capitalize()}"
    return f"The {_word(rng).capitalize()} {rng.choice(('of', 'and', 'in the'))} {_word(rng).capitalize()}"


def phrase(rng: random.Random) -> str:
    """One to three ordinary words, lower case or capitalised."""
    chosen = [_word(rng) for _ in range(rng.choices((1, 2, 3), (6, 3, 1))[0])]
    if rng.random() < 0.35:
        chosen = [word.capitalize() for word in chosen]
    return " ".join(chosen)


def quantity(rng: random.Random) -> str:
    """A number, a year, a date or a code."""
    form = rng.randrange(5)
    if form == 0:
        return str(rng.randrange(1, 10 ** rng.randrange(1, 6)))
    if form in (1, 2):
        return str(rng.randrange(1400, 2030))
    if form == 3:
        day, month, year = rng.randrange(1, 29), rng.choice(_MONTHS), rng.randrange(1700, 2030)
        return rng.choice((f"{day} {month} {year}", f"{month} {day}, {year}", f"{month} {year}"))
    return f"{rng.choice(('Type', 'Model', 'Route', 'Class', 'No.', 'M', 'NGC'))} {rng.randrange(1, 999)}"


def subject(rng: random.Random) -> str:
    """Something a fact may be about."""
    return rng.choices((person, place, invented, phrase), (4, 5, 2, 1))[0](rng)


def value(rng: random.Random) -> str:
    """Something a fact may say: half of them several words long."""
    return rng.choices((person, place, invented, phrase, quantity), (3, 5, 2, 4, 2))[0](rng)
