"""Typed, frozen values from plain ones, as YAML and JSON give them."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from typing import Any, Literal

from factpatch.errors import InputError


def build(kind: type, values: Any, prefix: str = "") -> Any:
    """A dataclass of `kind` from a mapping; InputError, with a suggestion, for keys and values that do not fit.

    `prefix` is put before the names of keys in messages.
    """
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise InputError(f"'{prefix.rstrip('.')}' must be a section with keys, not {values!r}")
    hints = typing.get_type_hints(kind)
    for key in values:
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            hint = f"did you mean '{prefix}{near[0]}'?" if near else f"known here: {', '.join(hints)}"
            raise InputError(f"unknown key '{prefix}{key}'; {hint}")
    return kind(**{key: _convert(hints[key], value, f"{prefix}{key}") for key, value in values.items()})


def _convert(hint: Any, value: Any, name: str) -> Any:
    """`value` as the type that `hint` asks for, or InputError."""
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, f"{name}.")
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        words = [word for argument in arguments for word in typing.get_args(argument)]  # of a Literal among them
        if value is None or (isinstance(value, str) and value in words):
            return value
        return _convert(next(argument for argument in arguments if argument is not type(None)), value, name)
    if origin is Literal:
        if value not in arguments:
            raise InputError(f"{name} is {value!r}; choose one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_convert(arguments[0], item, name) for item in value)
    if origin is dict and isinstance(value, dict):
        return {key: _convert(arguments[1], item, f"{name}.{key}") for key, item in value.items()}
    if hint is float and not isinstance(value, bool):
        try:  # YAML 1.1 reads 3e-3 as text
            return float(value)
        except (TypeError, ValueError):
            pass
    elif isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    wanted = (
        "a list"
        if origin is tuple
        else "a mapping"
        if origin is dict
        else {"int": "a whole number", "str": "text", "bool": "true or false", "float": "a number"}[hint.__name__]
    )
    raise InputError(f"{name} is {value!r}; it must be {wanted}")
