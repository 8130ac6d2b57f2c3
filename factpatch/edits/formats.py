"""File formats: JSON, JSONL, CSV and Parquet, each read piecewise into numbered rows.

Every reader yields `(number, row)`: the number is 1-based and is the line of a JSONL file, the item of a JSON file, the
record of a CSV file (its header not counted) and of a Parquet file. The values are what the file holds: no type is
guessed, so a row never depends on the rows around it.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pyarrow
import pyarrow.parquet

from factpatch.errors import InputError

CHUNK = 1 << 16  # characters read at a time
LONGEST_ITEM = 1 << 24  # characters of one item of a JSON file; a longer one is taken as broken
PARQUET_ROWS = 1000  # rows decoded at a time
NESTED = frozenset({"paraphrases", "locality", "portability", "target_old", "rephrase", "answers", "ground_truth"})

_BLANKS = re.compile(r"[ \t\r\n]*")


class _TwiceError(Exception):
    """An object that names a field twice: whichever value is meant, the other would be lost."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(f"field '{next(name for name in names if names.count(name) > 1)}' stands twice")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def read_file(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The numbered rows of one file, its format told by the ending of its name.

    Raises InputError, naming file and row, for an unknown ending, an empty or unreadable file, and broken content.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"'{path}' has an unknown ending; rename or convert it to one of {', '.join(READERS)}")
    number = 0
    try:
        for number, row in reader(path):
            if not isinstance(row, dict):
                raise InputError(
                    f"{path} row {number}: not an object but {type(row).__name__}; write named fields in {{}}"
                )
            yield number, row
    except UnicodeDecodeError as error:
        raise InputError(f"'{path}' is not UTF-8 text ({error.reason}); is it the right file?") from error
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror or error})") from error
    if number == 0:
        raise InputError(f"'{path}' is empty; give at least one edit request")


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    with _text(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                with _parsing(path, number):
                    row = _DECODER.decode(line)
                yield number, row


def _json_items(path: Path) -> Iterator[tuple[int, Any]]:
    """Items of one array; or, as some sets are published, objects one after the other."""
    with _text(path) as file:
        window = _Window(file)
        in_array = window.peek() == "["
        if in_array:
            window.skip()
        number = 1
        while window.peek() not in ("", "]"):
            with _parsing(path, number):
                row = window.value()
                if in_array and window.peek() not in (",", "]"):
                    raise ValueError("expected ',' or ']' after the item")
                if window.peek() == ",":
                    window.skip()
            yield number, row
            number += 1
        with _parsing(path, number):
            if in_array and window.peek() != "]":
                raise ValueError("the file ends before its list does")
            window.skip()
            if window.peek():
                raise ValueError("there is more after the end of the list")


def _csv_records(path: Path) -> Iterator[tuple[int, Any]]:
    """Records as text; empty cells are absent, and cells of list-valued fields may hold JSON."""
    with _text(path, newline="") as file:
        reader = csv.DictReader(file, strict=True)
        number = 0
        try:
            names = [*(reader.fieldnames or ())]
            if twice := [name for name in names if names.count(name) > 1]:
                raise InputError(f"'{path}': the header names '{_one_line(twice[0])}' twice; keep one of the columns")
            for number, record in enumerate(reader, start=1):
                if None in record:
                    raise InputError(f"{path} row {number}: more cells than the header; quote cells that hold a ','")
                yield number, {name: _cell(name, text) for name, text in record.items() if text}
        except csv.Error as error:
            raise InputError(f"{path} row {number + 1}: not CSV ({error})") from error


def _parquet_records(path: Path) -> Iterator[tuple[int, Any]]:
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, ValueError) as error:
        raise InputError(f"'{path}' is not readable Parquet ({_one_line(error)}), after row {number}") from error


READERS: dict[str, Callable[[Path], Iterator[tuple[int, Any]]]] = {
    ".json": _json_items,
    ".jsonl": _json_lines,
    ".csv": _csv_records,
    ".parquet": _parquet_records,
}


class _Window:
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
        self.at += 1

    def value(self) -> Any:
        """The next JSON value. Raises ValueError if what follows is none, however far one reads on."""
        while True:
            try:
                value, self.at = _DECODER.raw_decode(self.text, self.at)
                return value
            except ValueError:
                if len(self.text) - self.at > LONGEST_ITEM or not self._extend():
                    raise

    def _extend(self) -> bool:
        """Read as much again as is left in memory, so that a long item costs a few attempts only."""
        left = self.text[self.at :]
        more = self.file.read(max(CHUNK, len(left)))
        self.text, self.at = left + more, 0
        return bool(more)


def _text(path: Path, newline: str | None = None) -> TextIO:
    return path.open(encoding="utf-8-sig", newline=newline)


@contextmanager
def _parsing(path: Path, number: int) -> Iterator[None]:
    """Turn a parser's complaint into one line that names file and row."""
    try:
        yield
    except UnicodeDecodeError:
        raise
    except _TwiceError as error:
        raise InputError(f"{path} row {number}: {_one_line(error)}; keep one of them") from error
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise InputError(f"{path} row {number}: not JSON ({_one_line(reason)})") from error


def _cell(name: str, text: str) -> Any:
    if name in NESTED and text.lstrip().startswith(("[", "{")):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text


def _end(match: re.Match[str] | None) -> int:
    assert match is not None  # the pattern also matches nothing
    return match.end()


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split())[:200]
