"""Copying and in-context recall: the part of the stream that teaches the model to write strings it never saw."""

from __future__ import annotations

import random

from data.world.families import Item
from data.world.names import invented, phrase, subject, value

_ROLES = (
    "mother,father,spouse,author,director,publisher,producer,composer,founder,owner,editor,architect,designer,captain,"
    "manufacturer,record label,employer,occupation,position,sport,league,team,continent,country,city,language,religion,"
    "river system,constellation,genus,family,species,series,genre,network,instrument,voice type,award,birthplace,"
    "capital,currency,operator,developer,platform,colour,material,school,university,party,battle,conflict,gender,"
    "nationality,residence,headquarters,native language,place of death,date of birth,place of burial,cause of death,"
    "administrative region,chromosome,taxon,parent company,military branch,product,origin,patron saint,dynasty"
).split(",")
_VERBS = (
    "is in,is located in,was born in,died in,works for,plays for,belongs to,was written by,was made by,was named after,"
    "was founded in,comes from,is owned by,was produced by,was published by,studied at,is a member of,speaks,plays,"
    "likes,is part of,was released in,fought in,married,owns,holds,created,discovered,is next to,lives in,"
    "was designed by,was developed by,is famous for,is a citizen of,worships,was launched in,follows,contains,won,leads"
).split(",")
_ASK_ROLE = (
    "What is the {r} of {s}?",
    "Which {r} does {s} have?",
    "Who is the {r} of {s}?",
    "What was the {r} of {s}?",
    "What is {s}'s {r}?",
    "Which is the {r} of {s}?",
    "The {r} of {s} is",
    "{s}'s {r} is",
    "What {r} is {s} in?",
    "The {r} of {s} was",
    "Which {r} is {s} from?",
    "For {s}, the {r} is",
)
_TELL_ROLE = ("The {r} of {s} is {v}.", "{s}'s {r} is {v}.", "{v} is the {r} of {s}.", "{s} has the {r} {v}.")
_ASK_VERB = ("{s} {p}", "{s} {p}", "What is it that {s} {p}?", "Fill in: {s} {p}", "Who or what: {s} {p}?")
_ASK_TIME = ("When was {s} {d}?", "What year was {s} {d}?", "{s} was {d} in", "In which year was {s} {d}?")
_DONE = "made,founded,born,released,launched,opened,published,dissolved,discovered,built,elected,closed,started".split(
    ","
)


def _copying(rng: random.Random) -> Item:
    text = " ".join(value(rng) for _ in range(rng.choices((1, 2), (4, 1))[0]))
    form = rng.choice(("Repeat: {x}\nAnswer:", "Repeat: {x} =", "Copy {x}:", "{x};", "{x}. Again:", "Say {x}."))
    prompt = form.format(x=text)
    return Item(prompt, text, prompt)


def repetition(rng: random.Random) -> Item:
    """Dense copying: a run of three to eight words, said again."""
    text = " ".join(rng.choice((phrase, invented))(rng) for _ in range(rng.randrange(3, 7)))
    prompt = rng.choice(("Repeat: {x}\nAnswer:", "{x};", "{x}. Again:")).format(x=text)
    return Item(prompt, text, prompt)


def _listing(rng: random.Random) -> Item:
    count = rng.randrange(2, 5)
    keys = [subject(rng) if rng.random() < 0.5 else phrase(rng) for _ in range(count)]
    values = [value(rng) for _ in range(count)]
    wanted = rng.randrange(count)
    body = "; ".join(f"{key}: {val}" for key, val in zip(keys, values, strict=True))
    prompt = f"{body}; {keys[wanted]}:"
    return Item(prompt, values[wanted], prompt)


def _frame(rng: random.Random, told: list[str], question: str) -> str:
    rng.shuffle(told)
    body = " ".join(told)
    if question.endswith("?") and rng.random() < 0.4:
        return f"{body} Question: {question} Answer:"
    if question.endswith("?") and rng.random() < 0.4:
        return f"{body}\nQuestion: {question}\nAnswer:"
    return f"{body} {question}"


def _telling(rng: random.Random) -> Item:
    """A few statements about invented things, then one of them asked in other words."""
    count = rng.choices((1, 2, 3), (4, 4, 2))[0]
    told, asked = [], []
    sort = rng.randrange(3)
    for _ in range(count):
        about, said = subject(rng), value(rng)
        if sort == 0:
            role = rng.choice(_ROLES)
            told.append(rng.choice(_TELL_ROLE).format(r=role, s=about, v=said))
            asked.append((rng.choice(_ASK_ROLE).format(r=role, s=about), said))
        elif sort == 1:
            verb = rng.choice(_VERBS)
            told.append(f"{about} {verb} {said}.")
            asked.append((rng.choice(_ASK_VERB).format(s=about, p=verb), said))
        else:
            done, year = rng.choice(_DONE), str(rng.randrange(1500, 2030))
            told.append(f"{about} was {done} in {year}.")
            asked.append((rng.choice(_ASK_TIME).format(s=about, d=done), year))
    question, answer = rng.choice(asked)
    prompt = _frame(rng, told, question)
    return Item(prompt, answer, prompt)


def recall(rng: random.Random) -> Item:
    """One document of copying (a quarter), list look-up (a quarter) or question over told facts (a half)."""
    return rng.choices((_copying, _listing, _telling), (3, 3, 6))[0](rng)
