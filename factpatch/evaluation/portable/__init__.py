"""The portable suite: tasks and their data for models of any origin; data/portable in the repository makes them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

SUITE_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Question:
    """Something true of a subject: a sentence to complete and the same as a question, and the answer to both."""

    subject: str
    wordings: tuple[str, ...]
    target: str


def read_questions() -> list[Question]:
    """The general knowledge that the task portable_questions asks for."""
    rows = map(json.loads, (SUITE_FOLDER / "questions.jsonl").read_text(encoding="utf-8").splitlines())
    return [Question(row["subject"], tuple(row["wordings"]), row["target"]) for row in rows]
