"""General knowledge as subjects and answers, by kind, with a sentence to complete and a question for each kind."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
WORKED = "Question: What colour is grass?\nAnswer: green\n\nQuestion: {question}\nAnswer:"

# kind: a sentence that the answer completes, and a question
WORDINGS = {
    "capital": ("The capital of {} is", "What is the capital of {}?"),
    "currency": ("The currency of {} is the", "What is the currency of {}?"),
    "language": ("The main language spoken in {} is", "What is the main language of {}?"),
    "continent": ("{} is a country on the continent of", "On which continent does {} lie?"),
    "state": ("The capital of the US state of {} is", "What is the capital of the US state of {}?"),
    "city": ("{} is a city in", "In which country is the city of {}?"),
    "landmark": ("{} is located in the city of", "In which city is {}?"),
    "symbol": ("The chemical symbol for {} is", "What is the chemical symbol for {}?"),
    "opposite": ("The opposite of {} is", "What is the opposite of {}?"),
    "young": ("A baby {} is called a", "What is a baby {} called?"),
    "plural": ("One {}, two", "What is the plural of {}?"),
    "past": ("Today I {}, yesterday I", "What is the past tense of {}?"),
    "after": ("In order: {}, then", "What comes right after {}?"),
    "author": ("{} was written by", "Who wrote {}?"),
    "inventor": ("{} was", "Who was it: {}?"),
    "number": ("In digits, the number {} is written as", "How is the number {} written in digits?"),
    "spanish": ("The Spanish word for {} is", "What is the Spanish word for {}?"),
    "french": ("The French word for {} is", "What is the French word for {}?"),
    "is_a": ("{} is a kind of", "What kind of thing is {}?"),
}


@dataclass(frozen=True)
class Fact:
    """Something true, as a sentence to complete and as a question."""

    kind: str
    subject: str
    prompt: str
    question: str
    target: str


def facts() -> Iterator[Fact]:
    """All of them, kind by kind."""
    for row in _rows("facts"):
        sentence, question = (wording.format(row["subject"]) for wording in WORDINGS[row["kind"]])
        sentence = sentence[0].upper() + sentence[1:]
        yield Fact(row["kind"], row["subject"], sentence, question, row["answer"])
    for row in _rows("sentences"):
        yield Fact("alone", row["subject"], row["sentence"], row["question"], row["answer"])


def _rows(name: str) -> Iterator[dict[str, str]]:
    with (HERE / f"{name}.csv").open(encoding="utf-8") as file:
        yield from csv.DictReader(file)
