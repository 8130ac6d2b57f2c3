"""Values of any form as those of our fields: texts, lists of texts, and probes."""

from __future__ import annotations

import dataclasses
from typing import Any

from factpatch.edits.forms.paths import says_anything
from factpatch.edits.request import EditRequest
from factpatch.errors import InputError

FIELDS = tuple(field.name for field in dataclasses.fields(EditRequest))
TEXT_LISTS = ("target_old", "paraphrases")
PROBE_LISTS = ("locality", "portability")
PROMPTS = ("prompt", "loc", "question", "New Question")  # what a probe's prompt is called
ANSWERS = ("target", "ground_truth", "answer", "loc_ans", "New Answer")


def text_list(value: Any) -> list[Any]:
    """Texts, also nested ones, as one list; a text stands for a list of one."""
    if not isinstance(value, list):
        return [] if value is None else [value]
    return [text for item in value for text in text_list(item)]


def probes_from(value: Any, path: str, unread: set[str]) -> list[Any]:
    """Probes from any shape: one, a list of them, or either under names of kinds.

    What is not of a probe's shape stays as it is, for the checks to name; `unread` gets the paths of what is not used.
    """
    if isinstance(value, dict) and _name(value, PROMPTS) is None and _name(value, ANSWERS) is None:
        items = [item for kind in value.values() for item in (kind if isinstance(kind, list) else [kind])]
    else:
        items = value if isinstance(value, list) else [value]
    return [probe for item in items if item is not None for probe in _probes_of(item, path, unread)]


def _probes_of(item: Any, path: str, unread: set[str]) -> list[Any]:
    """The probe that one object is, or the several whose prompts it lists."""
    if not isinstance(item, dict):
        return [item]
    prompt, answer = _name(item, PROMPTS), _name(item, ANSWERS)
    if prompt is None and answer is None:
        return [item] if says_anything(item) else []
    unread.update(
        f"{path}.{name}" for name, other in item.items() if name not in (prompt, answer) and says_anything(other)
    )
    asked = item.get(prompt) if prompt else None
    said = item.get(answer) if answer else None
    return pairs(asked, said, f"{path}.{prompt}", f"{path}.{answer}", unread)


def pairs(asked: Any, said: Any, prompts: str, answers: str, unread: set[str]) -> list[dict[str, Any]]:
    """Probes from a prompt and its answer, the first of several; or from a list of prompts with an answer each, or one
    text for all. `prompts` and `answers` are their paths."""
    if not isinstance(asked, list):
        return [{"prompt": asked, "target": _first(said, answers, unread)}]
    if not isinstance(said, list):
        return [{"prompt": prompt, "target": said} for prompt in asked]
    if len(asked) != len(said):
        raise InputError(f"'{prompts}' holds {len(asked)} prompts, but '{answers}' {len(said)} answers; give as many")
    return [
        {"prompt": prompt, "target": _first(answer, answers, unread)}
        for prompt, answer in zip(asked, said, strict=True)
    ]


def _first(value: Any, path: str, unread: set[str]) -> Any:
    """The first of several answers, which may be nested; a probe has one."""
    if not isinstance(value, list):
        return value
    texts = text_list(value)
    if len(texts) > 1:
        unread.add(f"{path} (other answers)")
    return texts[0] if texts else None


def _name(value: dict[str, Any], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if value.get(name) is not None), None)
