"""File formats: CSV, TSV, XLSX, JSON, JSON Lines and Parquet, each also gzipped or in a zip, as numbered rows.

Every format yields `(number, row)`: the number is 1-based and is the line of a JSON Lines file, the item of a JSON
file, the record of a CSV file, of a sheet (their headers not counted, empty records counted) and of a Parquet file. The
values are what the file holds: no type is guessed, so a row never depends on the rows around it. Numbers, dates and
truth values are read as their text (`ReadAsText`); null, NaN and empty cells are absent. Files are read piecewise, so
that memory does not grow with them; only JSON by columns is read whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from factpatch.edits.formats.columnar import read_parquet
from factpatch.edits.formats.encoding import find_encoding
from factpatch.edits.formats.json_text import CHUNK_CHARACTERS, find_shape, read_items, read_lines
from factpatch.edits.formats.layout import Layout
from factpatch.edits.formats.packing import find_packing, open_bytes, reading
from factpatch.edits.formats.separated import find_separator, read_records
from factpatch.edits.formats.values import ReadAsText, count_read_as_text, row_as_text
from factpatch.edits.formats.workbook import find_sheet, read_sheet
from factpatch.errors import InputError

__all__ = [
    "CHUNK_CHARACTERS",
    "FILE_FORMATS",
    "Layout",
    "ReadAsText",
    "count_read_as_text",
    "find_layout",
    "has_known_ending",
    "read_file",
    "row_as_text",
]

Find = Callable[[Path, Layout], Layout]
Rows = Iterator[tuple[int, Any]]


@dataclass(frozen=True)
class FileFormat:
    """A file format: its name, whether it is text, how its layout is found, and how its rows are read."""

    name: str
    text: bool
    find: Find
    read: Callable[[Path, Layout], Rows]


def _nothing(path: Path, layout: Layout) -> Layout:
    return layout


FILE_FORMATS = {
    ".json": FileFormat("JSON", True, find_shape, read_items),
    ".jsonl": FileFormat("JSON Lines", True, _nothing, read_lines),
    ".ndjson": FileFormat("JSON Lines", True, _nothing, read_lines),
    ".csv": FileFormat("CSV", True, find_separator, read_records),
    ".tsv": FileFormat("TSV", True, find_separator, read_records),
    ".xlsx": FileFormat("XLSX", False, find_sheet, read_sheet),
    ".parquet": FileFormat("Parquet", False, _nothing, read_parquet),
}
PACKED_ENDINGS = (".gz", ".zip")


def has_known_ending(name: str) -> bool:
    """Whether a file of that name is read, packed or not."""
    path = Path(name.lower())
    return path.suffix in (*FILE_FORMATS, ".zip") or (
        path.suffix == ".gz" and path.with_suffix("").suffix in FILE_FORMATS
    )


def find_layout(path: Path) -> Layout:
    """How a file is written, found by looking at it before its rows are read.

    Raises InputError, naming the file, for an unknown ending, what cannot be opened or unpacked, an encoding,
    separator, sheet or list of rows that is not clear, and JSON that is broken before that is clear.
    """
    with reading(path):
        ending, layout = find_packing(path, FILE_FORMATS)
        if ending not in FILE_FORMATS:
            endings = f"{', '.join(FILE_FORMATS)}, or with {' or '.join(PACKED_ENDINGS)} after it"
            raise InputError(f"'{path}' has an unknown ending; rename or convert it to one of {endings}")
        format = FILE_FORMATS[ending]
        layout = replace(layout, format=format.name)
        if format.text:
            layout = replace(layout, encoding=find_encoding(path, lambda: open_bytes(path, layout)))
        return format.find(path, layout)


def read_file(path: Path, layout: Layout | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """The numbered rows of one file, its format told by the ending of its name; its layout, if it was found before.

    Raises InputError, naming file and row, for what `find_layout` refuses, an empty file, and broken content.
    """
    found = layout or find_layout(path)
    format = next(format for format in FILE_FORMATS.values() if format.name == found.format)
    number = 0
    with reading(path):
        for number, row in format.read(path, found):
            if not isinstance(row, dict):
                kind = "number" if isinstance(row, ReadAsText) else type(row).__name__
                raise InputError(f"{path} row {number}: not an object but {kind}; write named fields in {{}}")
            yield number, row
    if number == 0:
        raise InputError(f"'{path}' is empty; give at least one edit request")
