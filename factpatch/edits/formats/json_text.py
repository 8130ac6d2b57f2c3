"""JSON and JSON Lines: rows one after the other, in a list, in one field of an object, by key, or by columns."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Literal, TextIO

from factpatch.edits.formats.layout import Layout
from factpatch.edits.formats.packing import open_text
from factpatch.edits.formats.values import DECODER, InfinityError, ReadAsText, TwiceError, one_line
from factpatch.errors import InputError

CHUNK_CHARACTERS = 1 << 16  # characters read at a time
LONGEST_ITEM = 1 << 24  # characters of one item of a JSON file; a longer one is taken as broken
LONGEST_COLUMN = 1 << 30  # of one column, which is read whole

Kind = Literal["one", "objects", "list", "object"]

# A field of these that holds one value tells a row from an object that rows are wrapped in.
ROW_FIELDS = frozenset("prompt target target_new src alt op update question instruction completion".split())
ROW_LISTS = frozenset("requested_rewrite messages conversations edit".split())
SERVED = frozenset({"row_idx", "row", "truncated_cells"})  # a row as the hub's server of data sets gives it

_BLANKS = re.compile(r"[ \t\r\n]*")


def read_lines(path: Path, layout: Layout) -> Iterator[tuple[int, Any]]:
    """The rows of a file with one on every line; blank lines are skipped, and counted."""
    with open_text(path, layout) as file:
        for number, line in enumerate(file, start=1):
            if not line.isspace():
                try:
                    row = DECODER.decode(line)
                except UNREADABLE as error:
                    raise broken(f"{path} row {number}", error) from error
                yield number, row


def find_shape(path: Path, layout: Layout) -> Layout:
    """How the rows of a JSON file lie. Raises InputError for several lists of rows, and for broken JSON."""
    with open_text(path, layout) as file:
        window = Window(file)
        if window.peek() == "[":
            return replace(layout, shape="list")
        if window.peek() != "{":
            return layout
        kinds = _kinds(path, window)
        if window.peek():  # more than one object: each is a row
            return layout
    if any(kinds.get(name) == "one" for name in ROW_FIELDS) or kinds.keys() & ROW_LISTS:
        return layout
    if {"columns", "data"} <= kinds.keys() and kinds["columns"] == kinds["data"] == "list":
        return replace(layout, shape="split")
    if set(kinds.values()) == {"object"} and all(name.isdigit() for name in kinds):
        return replace(layout, shape="by key")
    if set(kinds.values()) in ({"object"}, {"list"}) and kinds.keys() & ROW_FIELDS:
        return replace(layout, shape="by column")
    lists = [name for name, kind in kinds.items() if kind == "objects"]
    if "rows" in lists and "features" in lists:  # from the hub's server of data sets
        lists = ["rows"]
    if len(lists) > 1:
        names = ", ".join(f"'{name}'" for name in lists)
        raise InputError(f"'{path}' holds several lists of objects ({names}); keep one of them in a file")
    return replace(layout, shape="list", inside=lists[0]) if lists else layout


def read_items(path: Path, layout: Layout) -> Iterator[tuple[int, Any]]:
    """The rows of a JSON file whose shape was found."""
    with open_text(path, layout) as file:
        window = Window(file)
        if layout.shape == "by column":
            yield from _from_columns(path, {name: window.value(LONGEST_COLUMN) for name in _members(path, window)})
        elif layout.shape == "split":
            yield from _from_split(path, {name: window.value(LONGEST_COLUMN) for name in _members(path, window)})
        elif layout.shape == "by key":
            for number, _ in enumerate(_members(path, window), start=1):
                with parsing(f"{path} row {number}"):
                    row = window.value()
                yield number, row
        elif layout.inside is not None:
            for name in _members(path, window):
                if name != layout.inside:
                    window.value(LONGEST_COLUMN)
                    continue
                for number, item in _items(path, window):
                    yield number, _served(path, number, item)
        else:
            number = 0
            for number, item in _items(path, window) if layout.shape == "list" else _objects(path, window):
                yield number, item
            with parsing(f"{path} row {number + 1}"):
                if window.peek():
                    raise ValueError("there is more after the end of the list")


def _items(path: Path, window: Window) -> Iterator[tuple[int, Any]]:
    """The items of the list that stands next."""
    number = 1
    window.skip()
    while window.peek() not in ("", "]"):
        try:
            item = window.value()
            if window.peek() not in (",", "]"):
                raise ValueError("expected ',' or ']' after the item")
        except UNREADABLE as error:
            raise broken(f"{path} row {number}", error) from error
        if window.peek() == ",":
            window.skip()
        yield number, item
        number += 1
    with parsing(f"{path} row {number}"):
        if window.peek() != "]":
            raise ValueError("the file ends before its list does")
    window.skip()


def _objects(path: Path, window: Window) -> Iterator[tuple[int, Any]]:
    """Objects one after the other, as some sets are published."""
    for number in count(1):
        if not window.peek():
            return
        with parsing(f"{path} row {number}"):
            row = window.value()
        if window.peek() == ",":
            window.skip()
        yield number, row


def _members(path: Path, window: Window) -> Iterator[str]:
    """The names of the object that stands next; the caller reads the value after each."""
    seen: set[str] = set()
    window.skip()
    while window.peek() not in ("", "}"):
        with parsing(f"{path} row 1"):
            name = window.value()
            if not isinstance(name, str) or isinstance(name, ReadAsText) or window.peek() != ":":
                raise ValueError("expected a name and ':'")
            if name in seen:
                raise TwiceError(f"field '{one_line(name)}' stands twice")
        seen.add(name)
        window.skip()
        yield name
        with parsing(f"{path} row 1"):
            if window.peek() not in (",", "}"):
                raise ValueError("expected ',' or '}' after the value")
        if window.peek() == ",":
            window.skip()
    with parsing(f"{path} row 1"):
        if window.peek() != "}":
            raise ValueError("the file ends before its object does")
    window.skip()


def _kinds(path: Path, window: Window) -> dict[str, Kind]:
    """What each field of the object that stands next holds; read and let go, as it may be the whole file."""
    kinds: dict[str, Kind] = {}
    for name in _members(path, window):
        first = window.peek()
        kinds[name] = "one"
        if first == "{":
            kinds[name] = "object"
        if first == "[":
            kinds[name] = "list"
            for number, item in _items(path, window):
                if number == 1 and isinstance(item, dict):
                    kinds[name] = "objects"
        else:
            with parsing(f"{path}, field '{one_line(name)}'"):
                window.value(LONGEST_COLUMN if first == "{" else LONGEST_ITEM)
    return kinds


def _from_columns(path: Path, columns: dict[str, Any]) -> Iterator[tuple[int, Any]]:
    """Rows from columns, each a list or, as pandas writes them by default, an object by the row's key."""
    if all(isinstance(column, list) for column in columns.values()):
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise InputError(f"'{path}' has columns of different lengths: {one_line(lengths)}; make them the same")
        columns = {name: dict(enumerate(column)) for name, column in columns.items()}
    keys = dict.fromkeys(key for column in columns.values() for key in column)
    for number, key in enumerate(keys, start=1):
        yield number, {name: column[key] for name, column in columns.items() if key in column}


def _from_split(path: Path, parts: dict[str, Any]) -> Iterator[tuple[int, Any]]:
    """Rows from a list of column names and a list of the cells of each row."""
    names = parts["columns"]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"'{path}': its columns name '{one_line(twice)}' twice; keep one of the columns")
    for number, cells in enumerate(parts["data"], start=1):
        if not isinstance(cells, list) or len(cells) != len(names):
            raise InputError(f"{path} row {number}: not {len(names)} cells, as there are columns")
        yield number, dict(zip(map(str, names), cells, strict=True))


def _served(path: Path, number: int, item: Any) -> Any:
    """The row inside what the hub's server of data sets wraps around each."""
    if not (isinstance(item, dict) and isinstance(item.get("row"), dict) and item.keys() <= SERVED):
        return item
    if item.get("truncated_cells"):
        raise InputError(f"{path} row {number}: the server cut its cells short; load the data set by its hub name")
    return item["row"]


class Window:
    """The part of a text that is in memory: enough to see the next item of it."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.text, self.at = file, "", 0

    def peek(self) -> str:
        """The next character that is not blank; empty at the end of the file."""
        while True:
            self.at = _end(_BLANKS.match(self.text, self.at))
            if self.at < len(self.text) or not self._extend():
                return self.text[self.at : self.at + 1]

    def skip(self) -> None:
        """Pass over the next character that is not blank."""
        self.peek()
        self.at += 1

    def value(self, longest: int = LONGEST_ITEM) -> Any:
        """The next JSON value. Raises ValueError if what follows is none, however far one reads on."""
        self.peek()
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.at)
            except ValueError:
                if len(self.text) - self.at > longest or not self._extend():
                    raise
                continue
            if end == len(self.text) and self.text[end - 1] not in '"]}' and self._extend():
                continue  # a number may go on
            self.at = end
            return value

    def _extend(self) -> bool:
        """Read as much again as is left in memory, so that a long item costs a few attempts only."""
        left = self.text[self.at :]
        more = self.file.read(max(CHUNK_CHARACTERS, len(left)))
        self.text, self.at = left + more, 0
        return bool(more)


UNREADABLE = (ValueError, RecursionError, TwiceError, InfinityError)  # what decoding JSON raises


def broken(where: str, error: Exception) -> InputError:
    """What decoding complains of, as one line."""
    if isinstance(error, TwiceError):
        return InputError(f"{where}: {one_line(error)}; keep one of them")
    if isinstance(error, InfinityError):
        return InputError(f"{where}: {error}")
    reason = error.msg if isinstance(error, json.JSONDecodeError) else error
    return InputError(f"{where}: not JSON ({one_line(reason)})")


@contextmanager
def parsing(where: str) -> Iterator[None]:
    """Raise what decoding complains of as one line; where rows are many, catching it there is faster."""
    try:
        yield
    except UNREADABLE as error:
        raise broken(where, error) from error


def _end(match: re.Match[str] | None) -> int:
    assert match is not None  # the pattern also matches nothing
    return match.end()
