"""Edit requests made up by number: distinct subjects, seven relations, two paraphrases each; as many as asked for."""

from __future__ import annotations

import random
from typing import Any

RELATIONS = {  # prompt, two paraphrases, how targets begin
    "home": ("{} was born in", "The birthplace of {} is", "{} comes from the town of"),
    "work": ("{} works for", "The employer of {} is", "{} is employed by"),
    "tongue": ("The mother tongue of {} is", "{} grew up speaking", "At home, {} speaks"),
    "field": ("{} is an expert in", "The field of {} is", "{} does research on"),
    "rival": ("The rival of {} is", "{} competes with", "{} has long been opposed by"),
    "club": ("{} is a member of", "The club of {} is", "{} belongs to"),
    "award": ("{} was awarded", "The prize of {} is", "{} received"),
}
STARTS = ("Ba", "Cor", "Dal", "Er", "Fen", "Gor", "Hal", "Ish", "Jor", "Kel", "Lum", "Mar", "Nor", "Os", "Pel", "Quin")
MIDDLES = ("a", "e", "i", "o", "u", "ar", "el", "in", "or", "un")
ENDS = ("bert", "dane", "fax", "gard", "holm", "kin", "low", "mond", "ric", "stan", "ton", "vale", "wick", "yar", "zen")


def made_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """So many rows; those of a smaller number are the first of a larger one."""
    generator, taken = random.Random(seed), set[str]()
    rows: list[dict[str, Any]] = []
    relations = list(RELATIONS.items())
    while len(rows) < count:
        subject = f"{_name(generator)} {_name(generator)}"
        if subject in taken:
            continue
        taken.add(subject)
        relation, (prompt, *paraphrases) = relations[len(rows) % len(relations)]
        rows.append(
            {
                "id": f"{relation}-{len(rows)}",
                "prompt": prompt.format(subject),
                "target": f"{_name(generator)} {relation}",
                "subject": subject,
                "paraphrases": [text.format(subject) for text in paraphrases],
            }
        )
    return rows


def _name(generator: random.Random) -> str:
    return generator.choice(STARTS) + generator.choice(MIDDLES) + generator.choice(ENDS)
