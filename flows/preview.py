"""How edit rows were read, as the terminal shows it: the form of every file, and the first edits field by field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factpatch.settings.config import Settings
from flows.console import printable, quoted

if TYPE_CHECKING:
    from factpatch.edits.loading import Row

PREVIEWED = 3  # edits
SEEN = 256  # whose prompts tell together what each is about
LINES = 20  # files told one by one


def reading_lines(reading: Sequence[Mapping[str, Any]]) -> list[str]:
    """`FILE: FORMAT, read as FORM: N rows` for each file and form, with the fields that no edit uses."""
    lines = [
        printable(f"{Path(read['file']).name}: {read['format']}, read as {_count(read)}") for read in reading[:LINES]
    ]
    rest = len(reading) - LINES
    return [*lines, f"and {rest} more; validate.json names them"] if rest > 0 else lines


def preview(settings: Settings) -> list[str]:
    """The first edits as they are read, and how all rows are; nothing is checked or written."""
    from factpatch.edits.loading import read_as, read_rows

    rows = read_rows(settings.edits.path, settings.edits.columns)
    seen = list(islice(rows, SEEN))
    lines = [line for row in seen[:PREVIEWED] for line in (*_shown(row), *_found(row, seen), "")]
    return [*lines, *reading_lines(read_as(chain(seen, rows)))]


def _found(row: Row, seen: Sequence[Row]) -> list[str]:
    """The subject that is found in a prompt whose row names none, by its own words and those of others."""
    from factpatch.edits.subjects import find_subjects

    bare = [other for other in seen if not other.values.get("subject") and isinstance(other.values.get("prompt"), str)]
    if row not in bare:
        return []
    found = find_subjects([other.values["prompt"] for other in bare])[bare.index(row)]
    return [f"  {'subject':<12} {quoted(found) if found else 'none'} (found in the prompt)"]


def _count(read: Mapping[str, Any]) -> str:
    edits = "" if read["edits"] == read["rows"] else f", {read['edits']} edits"
    unused = ", ".join(f"{printable(name)} ({count})" for name, count in read["unused"].items())
    rows = "1 row" if read["rows"] == 1 else f"{read['rows']} rows"
    return f"{read['form']}: {rows}{edits}" + (f"; not used: {unused}" if unused else "")


def _shown(row: Row) -> list[str]:
    """An edit, one text a line."""
    lines = [printable(f"{row.where}, {row.form}")]
    for name, value in row.values.items():
        for number, item in enumerate(value if isinstance(value, list) else [value]):
            lines.append(f"  {name if number == 0 else '':<12} {_said(item)}")
    return lines


def _said(item: Any) -> str:
    if isinstance(item, dict):
        return f"{_said(item.get('prompt'))} -> {_said(item.get('target'))}"
    return quoted(item)
