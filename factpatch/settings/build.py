"""Typed, frozen values from plain ones, as YAML and JSON give them: what pydantic refuses, told in one line."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from factpatch.errors import InputError

KINDS = {  # of values, by pydantic's word for one that is none
    "int_type": "a whole number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
}
BOUNDS = {  # what pydantic's word for a value beyond a bound says, and where it keeps the bound
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
}
RENAMED = {  # keys of earlier versions
    "training.protect": "training.preservation.prompts",
    "training.neighbours": "training.preservation.neighbours",
    "training.protect_ratio": "training.preservation.ratio",
    "training.protect_least": "training.preservation.least",
    "training.keep": "training.preservation.loss",
    "training.keep_weight": "training.preservation.weight",
    "training.wordings": "training.augmentation.wordings",
    "training.templates": "training.augmentation.templates",
    "training.prefixes": "training.augmentation.prefixes",
    "training.both_forms": "training.augmentation.both_forms",
}
REMOVED = {
    "training.adaptive": "a weight that follows watched rows won nothing",
    "training.project": "updates turned away from what prompts use won nothing over preserving these prompts",
    "training.project_share": "it belonged to training.project",
    "training.keep_memory_gb": "what is preserved takes little memory now",
}


def build(kind: type, values: Mapping[str, Any], section: str = "") -> Any:
    """A dataclass of `kind` from a mapping; InputError, with a suggestion, for keys and values that do not fit.
    `section` is what stands before its keys' names, such as `training.options.`."""
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise InputError(_told(error, kind, section)) from error


def _told(error: ValidationError, kind: type, section: str) -> str:
    """What is wrong with the first value that is refused, in one line with the fix."""
    found = error.errors(include_url=False)[-1]
    path = [part for part in found["loc"] if str(part).isidentifier()]
    name, value, context = section + ".".join(map(str, path)), found["input"], found.get("ctx", {})
    match found["type"]:
        case "unexpected_keyword_argument":
            return _unknown(path, kind)
        case "dataclass_type":
            return f"'{name}' must be a section with keys, not {value!r}"
        case "literal_error":
            return f"{name} is {value!r}; choose one of {_listed(context['expected'])}"
        case "greater_than_equal" | "greater_than" | "less_than_equal" as beyond:
            words, bound = BOUNDS[beyond]
            return f"{name} is {as_yaml(value)}; it must be {words} {context[bound]:g}"
    return f"{name} is {value!r}; it must be {KINDS.get(found['type'], 'a number')}"


def _listed(expected: str) -> str:
    """Pydantic's list of choices, without quotes."""
    return expected.replace(" or ", ", ").replace("'", "")


def _unknown(path: Sequence[Any], kind: Any) -> str:
    """That there is no such key, with what became of it or the one that was meant."""
    name = ".".join(map(str, path))
    if name in RENAMED:
        return f"'{name}' is now '{RENAMED[name]}'"
    if name in REMOVED:
        return f"'{name}' is no longer there ({REMOVED[name]}); leave it out"
    for part in path[:-1]:
        kind = typing.get_type_hints(kind)[part]
    prefix = "".join(f"{part}." for part in path[:-1])
    names = [known.name for known in dataclasses.fields(kind)]
    return unknown_key(prefix, str(path[-1]), names)


def unknown_key(section: str, key: str, known: Sequence[str]) -> str:
    """That a section has no such key, with the one that was meant or all that there are."""
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean '{section}{near[0]}'?" if near else f"known here: {', '.join(known)}"
    return f"unknown key '{section}{key}'; {hint}"


def as_yaml(value: Any) -> str:
    """A value as YAML would hold it."""
    return f"{value:g}" if isinstance(value, float) else yaml.safe_dump(value).split("\n")[0]
