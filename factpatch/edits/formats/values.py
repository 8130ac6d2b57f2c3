"""Values of a file as text: a number, a date or a truth value is read as its text, and told apart from other texts."""

from __future__ import annotations

import ast
import json
import math
import warnings
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from factpatch.errors import InputError

NESTED = frozenset(
    "paraphrases locality portability target_old rephrase answers ground_truth rephrase_prompt locality_prompt "
    "locality_ground_truth portability_prompt portability_ground_truth".split()
)  # fields that hold lists; in a table their cells hold these as JSON, or as Python writes them


class ReadAsText(str):
    """The text of a value that is no text in its file, such as a number: text like any other, but it can be counted."""

    __slots__ = ()


class TwiceError(Exception):
    """An object that names a field twice: whichever value is meant, the other would be lost."""


class InfinityError(Exception):
    """A number that is none: it has no text that anybody would want a model to say."""

    def __init__(self) -> None:
        super().__init__("holds Infinity, which is no number; write what is meant as text, or leave it out")


def as_text(value: Any) -> Any:
    """The value with every number, date and truth value in it as text; NaN is None. Raises InfinityError."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        return [as_text(item) for item in value]
    if isinstance(value, dict):
        return {str(name): as_text(item) for name, item in value.items()}
    if isinstance(value, bool):
        return ReadAsText("true" if value else "false")
    if isinstance(value, (float, Decimal)):
        if math.isnan(value):
            return None
        if math.isinf(value):
            raise InfinityError
        return ReadAsText(format(value, "f") if isinstance(value, Decimal) else repr(float(value)))
    if isinstance(value, datetime):
        midnight = (value.hour, value.minute, value.second, value.microsecond) == (0, 0, 0, 0)
        return ReadAsText(value.date().isoformat() if midnight else value.isoformat(" "))
    if isinstance(value, date):
        return ReadAsText(value.isoformat())
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else ReadAsText(value)


def row_as_text(where: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The row with its values as text. Raises InputError, which names the row by `where`, for infinity."""
    try:
        return {name: as_text(value) for name, value in raw.items()}
    except InfinityError as error:
        raise InputError(f"{where}: {error}") from error


def count_read_as_text(values: Mapping[str, Any]) -> int:
    """How many texts of a row are no text in its file. Ids are left out: numbered rows are common."""
    return sum(_count(value) for name, value in values.items() if name != "id")


def _count(value: Any) -> int:
    if isinstance(value, str):
        return isinstance(value, ReadAsText)
    if isinstance(value, dict):
        return sum(map(_count, value.values()))
    return sum(map(_count, value)) if isinstance(value, list) else 0


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise TwiceError(f"field '{next(name for name in names if names.count(name) > 1)}' stands twice")
    for name, value in pairs:
        if value is True or value is False or type(value) is list:
            found[name] = as_text(value)
    return found


def _constant(name: str) -> None:
    """NaN, which `json.dump` writes for an empty cell of a data frame, is absent."""
    if name != "NaN":
        raise InfinityError


# Numbers keep the text that they have in the file: 3.10 is not 3.1, and no digit of a long one is lost.
DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=ReadAsText, parse_float=ReadAsText, parse_constant=_constant
)


def read_cell(text: str) -> Any:
    """What a cell of a nested field holds: a list or an object, as JSON or as Python writes it, or else its text."""
    bare = text.strip()
    if not bare.startswith(("[", "{")):
        return text
    try:
        value, end = DECODER.raw_decode(bare)
    except (ValueError, RecursionError):
        end = 0
    return value if end == len(bare) else _python_cell(text)


def _python_cell(text: str) -> Any:
    """A list as `pandas.to_csv` writes it, which is as Python does; any other text as it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about backslashes in what is no Python
            value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return as_text(value) if isinstance(value, (list, dict)) else text


def one_line(reason: object) -> str:
    """A foreign complaint, short and in one line."""
    return " ".join(str(reason).split())[:200]
