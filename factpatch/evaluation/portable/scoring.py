"""What the tasks' files call: which rows count, and when a reply is right."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from factpatch.errors import InputError
from factpatch.evaluation.answers import normalise


def with_text(docs: Dataset) -> Dataset:
    """Rows that hold a paragraph; blank lines are none. InputError where a row has no `text`."""
    if "text" not in docs.column_names:
        raise InputError(f"its rows have no 'text' but {', '.join(docs.column_names)}; write one paragraph a line")
    return docs.filter(lambda row: isinstance(row["text"], str) and bool(row["text"].strip()))


def says(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Whether the reply holds the wanted words, in their order."""
    return {"acc": float(f" {normalise(doc['target'])} " in f" {normalise(results[0])} ")}
