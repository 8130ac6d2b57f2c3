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


def build(kind: type, values: Mapping[str, Any]) -> Any:
    """A dataclass of `kind` from a mapping; InputError, with a suggestion, for keys and values that do not fit."""
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise InputError(_told(error, kind)) from error


def _told(error: ValidationError, kind: type) -> str:
    """What is wrong with the first value that is refused, in one line with the fix."""
    found = error.errors(include_url=False)[-1]
    path = [part for part in found["loc"] if str(part).isidentifier()]
    name, value, context = ".".join(map(str, path)), found["input"], found.get("ctx", {})
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
    """That there is no such key, with the one that was meant."""
    for part in path[:-1]:
        kind = typing.get_type_hints(kind)[part]
    *_, key = path
    prefix = "".join(f"{part}." for part in path[:-1])
    names = [known.name for known in dataclasses.fields(kind)]
    near = difflib.get_close_matches(str(key), names, n=1)
    hint = f"did you mean '{prefix}{near[0]}'?" if near else f"known here: {', '.join(names)}"
    return f"unknown key '{prefix}{key}'; {hint}"


def as_yaml(value: Any) -> str:
    """A value as YAML would hold it."""
    return f"{value:g}" if isinstance(value, float) else yaml.safe_dump(value).split("\n")[0]
