"""Does a model that was stored and fetched again still answer as measured?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from factpatch.config import Settings
from factpatch.edits.request import EditRequest
from factpatch.evaluation.answers import unchanged
from factpatch.evaluation.evaluate import collect_answers
from factpatch.models import load_model


def spread(rows: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """So many rows at most, evenly spread over all."""
    chosen = min(count, len(rows))
    return [rows[index * len(rows) // chosen] for index in range(chosen)]


def moved_answers(model: Path, rows: Sequence[Mapping[str, Any]], settings: Settings) -> list[str]:
    """The prompts among rows of `evaluate.json` that the model in a folder answers otherwise than they say."""
    loaded = load_model(replace(settings.model, path=str(model)))
    edits = [EditRequest(row["id"], row["prompt"], row["target"]) for row in rows]
    outputs = collect_answers(loaded, edits, settings).outputs
    protocol = settings.evaluation.protocol
    return [
        row["prompt"] for row in rows if not unchanged(row["output"], outputs[row["prompt"]], row["target"], protocol)
    ]
