"""Does a model that was stored and fetched again still answer as measured?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from factpatch.edits.request import EditRequest
from factpatch.evaluation.answers import unchanged
from factpatch.evaluation.evaluate import CUT, collect_answers
from factpatch.models.loading import load_model
from factpatch.patches.patch import apply_patch
from factpatch.settings.config import Settings


def evenly_spread(rows: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """At most `count` of the rows, evenly spread over all."""
    chosen = min(count, len(rows))
    return [rows[index * len(rows) // chosen] for index in range(chosen)]


def moved_answers(
    model: str, rows: Sequence[Mapping[str, Any]], settings: Settings, patch: Path | None = None
) -> list[str]:
    """The prompts among rows of `evaluate.json` that a model, with the patch if there is one, answers otherwise than
    they say."""
    loaded = load_model(replace(settings.model, path=model))
    if patch is not None:
        apply_patch(loaded, patch)
    edits = [EditRequest(row["id"], row["prompt"], row["target"]) for row in rows]
    outputs = collect_answers(loaded, edits, settings).outputs
    protocol = settings.evaluation.protocol

    def moved(told: str, now: str, target: str) -> bool:
        """Of texts that were cut, as far as both go; where depends on what else was asked along with a prompt."""
        if CUT not in (told[-1:], now[-1:]):
            return not unchanged(told, now, target, protocol)
        shorter, longer = sorted((told.removesuffix(CUT), now.removesuffix(CUT)), key=len)
        return not longer.startswith(shorter.rstrip("\ufffd"))

    return [row["prompt"] for row in rows if moved(row["output"], outputs[row["prompt"]], row["target"])]
