"""CSV and TSV: records of text cells, with the separator that the header shows.

Python's own reader is used, as it alone numbers records, keeps every cell as it is written, and refuses broken quotes.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from factpatch.edits.formats.layout import Layout
from factpatch.edits.formats.packing import open_text
from factpatch.edits.formats.tabular import FIELDS, find_renamed, to_rows
from factpatch.edits.formats.values import one_line
from factpatch.errors import InputError

SEPARATORS = (",", ";", "\t", "|")
HEAD = 1 << 16  # characters in which the separator shows
RECORDS_PROBED = 20  # records that it must fit

_SAID = re.compile(r'"?sep=(.)"?\r?\n?')  # a first line that Excel writes and reads


def find_separator(path: Path, layout: Layout) -> Layout:
    """The separator of a file, said in its first line or told by its header and first records.

    Raises InputError if more than one would do.
    """
    with open_text(path, layout, newline="") as file:
        head = file.read(HEAD)
        if len(head) == HEAD:  # the last line may be a part of one
            head = head[: head.rfind("\n") + 1] or head
    first, _, rest = head.partition("\n")
    if said := _SAID.fullmatch(first):
        separator, head = said[1], rest
    else:
        separator = _choose(path, layout.format, head)
    header = next(iter(_records(head, separator)), [])
    return replace(layout, separator=separator, renamed=find_renamed(header))


def _choose(path: Path, format: str, head: str) -> str:
    found = {separator: _records(head, separator) for separator in SEPARATORS}
    able = [separator for separator, records in found.items() if records and len(records[0]) > 1]
    if not able:
        return "\t" if format == "TSV" else ","
    rank = {
        separator: (
            len({name.strip().lower() for name in found[separator][0]} & FIELDS),
            all(len(record) == len(found[separator][0]) for record in found[separator]),
        )
        for separator in able
    }
    best = [separator for separator in able if rank[separator] == max(rank.values())]
    if len(best) > 1:
        either = " or ".join(map(repr, best))
        raise InputError(f"'{path}': its separator may be {either}; write 'sep={best[0]}' in a line above the header")
    return best[0]


def _records(head: str, separator: str) -> list[list[str]]:
    """The header and the first records; as many as are whole."""
    records: list[list[str]] = []
    with suppress(csv.Error):
        reader = csv.reader(io.StringIO(head, newline=""), delimiter=separator, strict=True)
        records += islice(filter(any, reader), RECORDS_PROBED)
    return records


def read_records(path: Path, layout: Layout) -> Iterator[tuple[int, Any]]:
    """The rows of a file; every record after the header is counted, empty ones and blank lines too."""
    assert layout.separator is not None
    with open_text(path, layout, newline="") as file:
        first = file.readline()
        lines = file if _SAID.fullmatch(first) else chain([first], file)
        reader = csv.reader(lines, delimiter=layout.separator, strict=True)
        try:
            header = next(filter(any, reader), [])
        except csv.Error as error:
            raise InputError(f"'{path}': its header is not CSV ({one_line(error)})") from error
        hint = f"cells are parted by {layout.separator!r}, so quote those that hold one"
        yield from to_rows(path, header, _numbered(path, reader), hint)


def _numbered(path: Path, reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    number = 0
    try:
        for number, cells in enumerate(reader, start=1):
            yield number, cells
    except csv.Error as error:
        raise InputError(f"{path} row {number + 1}: not CSV ({one_line(error)})") from error
