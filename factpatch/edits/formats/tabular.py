"""Tables: a header that names the columns, and records of cells; CSV, TSV and workbooks share this."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from factpatch.edits.formats.json_text import UNREADABLE, broken
from factpatch.edits.formats.values import NESTED, one_line, read_cell
from factpatch.edits.request import EditRequest
from factpatch.errors import InputError

FIELDS = frozenset(field.name for field in dataclasses.fields(EditRequest))


def name_columns(path: Path, header: Sequence[str]) -> list[str]:
    """The names of a header, without blanks around them and native ones in lower case; unnamed columns by position.

    Raises InputError for a name that stands twice.
    """
    stripped = [name.strip() for name in header]
    renamed = find_renamed(stripped)
    names = [name.lower() if name in renamed else name for name in stripped]
    if twice := next((name for name in names if name and names.count(name) > 1), None):
        raise InputError(f"'{path}': the header names '{one_line(twice)}' twice; keep one of the columns")
    return [name or f"column {position}" for position, name in enumerate(names, start=1)]


def find_renamed(header: Sequence[str]) -> tuple[str, ...]:
    """Names that are those of native fields but for their case, where only one column can be meant."""
    lower = [name.strip().lower() for name in header]
    return tuple(
        name.strip()
        for name in header
        if name.strip().lower() in FIELDS - {name.strip()} and lower.count(name.strip().lower()) == 1
    )


def to_rows(
    path: Path, header: Sequence[str], records: Iterable[tuple[int, Sequence[str]]], hint: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows from numbered records: empty cells are absent, empty records are left out, nested cells are decoded.

    Raises InputError for a record with more cells than the header; `hint` says what may be the matter.
    """
    names = name_columns(path, header)
    nested = NESTED.intersection(names)
    width = len(names)
    for number, cells in records:
        if len(cells) > width and any(cells[width:]):
            raise InputError(f"{path} row {number}: more cells than the header ({len(cells)}, not {width}); {hint}")
        text = "".join(cells)
        if not text or text.isspace():
            continue
        row: dict[str, Any] = dict(zip(names, cells, strict=False))
        if "" in cells:
            row = {name: cell for name, cell in row.items() if cell}
        try:
            for name in nested:
                if name in row:
                    row[name] = read_cell(row[name])
        except UNREADABLE as error:
            raise broken(f"{path} row {number}", error) from error
        yield number, row
