"""Canaries: facts and prompts that must be answered right after every edit, whatever it was about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from factpatch.config import Settings
from factpatch.edits.findings import tidy
from factpatch.edits.loading import read_named
from factpatch.edits.request import EditRequest
from factpatch.errors import InputError
from factpatch.evaluation.answers import Protocol, matches
from factpatch.evaluation.evaluate import Answers, collect_answers
from factpatch.evaluation.intervals import share
from factpatch.models import LoadedModel


def read_canaries(path: str | None) -> list[EditRequest]:
    """The canaries of a file in the form of edit requests, of which `prompt` and `target` count; none without a path.

    Raises InputError for a file that cannot be read, that is empty, or a row without the two.
    """
    if path is None:
        return []
    canaries = []
    for row in map(tidy, read_named(path, "gates.canaries")):
        prompt, target = row.values.get("prompt"), row.values.get("target")
        if not (isinstance(prompt, str) and prompt.strip() and isinstance(target, str) and target.strip()):
            raise InputError(f"{row.where}: a canary needs a 'prompt' and a 'target', both text")
        canaries.append(EditRequest(row.where, prompt, target))
    if not canaries:
        raise InputError(
            f"gates.canaries: '{path}' holds no canary; add rows with prompt and target, or set it to null"
        )
    return canaries


def ask_canaries(
    loaded: LoadedModel, canaries: Sequence[EditRequest], settings: Settings, before: Answers | None = None
) -> dict[str, Any]:
    """The share answered right with n and interval, and every answer; `before` holds the base model's answers."""
    outputs = collect_answers(loaded, canaries, settings).outputs
    return score_canaries(canaries, outputs, settings.evaluation.protocol, before)


def score_canaries(
    canaries: Sequence[EditRequest], outputs: Mapping[str, str], protocol: Protocol, before: Answers | None = None
) -> dict[str, Any]:
    """The same from texts alone; `outputs` maps each prompt to what was said."""
    right = [matches(outputs[canary.prompt], canary.target, protocol) for canary in canaries]
    items = [
        {
            "prompt": canary.prompt,
            "target": canary.target,
            "before": before.outputs[canary.prompt] if before else None,
            "output": outputs[canary.prompt],
            "correct": correct,
        }
        for canary, correct in zip(canaries, right, strict=True)
    ]
    return {**share(right, "there are no canaries"), "items": items}
