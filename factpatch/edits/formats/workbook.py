"""XLSX: the one sheet of a workbook that holds rows, with its values as the sheet shows them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path
from typing import Any

import openpyxl
from openpyxl.utils.escape import unescape

from factpatch.edits.formats.layout import Layout
from factpatch.edits.formats.packing import open_bytes
from factpatch.edits.formats.tabular import find_renamed, to_rows
from factpatch.edits.formats.values import ReadAsText, as_text, one_line
from factpatch.errors import InputError

LAST_ROW = 1 << 20  # of a sheet
EXACT = 1e15  # numbers below have no more digits than a workbook keeps

_NUMBER_FORMAT = re.compile(r"(#,##)?0(?:\.(0+))?(%)?")  # those that are followed; others show the value itself

Place = tuple[int, int]  # row and column in the sheet
Formulas = Callable[[], set[Place]]


def find_sheet(path: Path, layout: Layout) -> Layout:
    """The one visible sheet that holds anything. Raises InputError for several, as the rows of one would be lost."""
    with _workbook(path, layout) as book:
        sheets = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"]
        headers = {sheet.title: next(_filled(path, sheet), None) for sheet in sheets}
    found = {name: header[1] for name, header in headers.items() if header}
    if len(found) > 1:
        names = ", ".join(f"'{name}'" for name in found)
        raise InputError(f"'{path}' holds several sheets ({names}); keep one of them, or save each as a file")
    if not found:
        return layout
    [(name, cells)] = found.items()
    return replace(layout, inside=name, renamed=find_renamed([str(cell.value or "") for cell in cells]))


def read_sheet(path: Path, layout: Layout) -> Iterator[tuple[int, Any]]:
    """The rows of the sheet that was found; a row's number is that in the sheet, counted from below the header."""
    if layout.inside is None:
        return
    formulas = cache(lambda: _formulas(path, layout))
    with _workbook(path, layout) as book:
        rows = _filled(path, book[layout.inside])
        top, header = next(rows)
        names = [_shown(f"{path} row 0", cell, formulas) for cell in header]
        records = (
            (number - top, [_shown(f"{path} row {number - top}", cell, formulas) for cell in cells])
            for number, cells in rows
        )
        yield from to_rows(path, names, records, "name the column of each")


def _filled(path: Path, sheet: Any) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """The rows with any cell, numbered as in the sheet; what the file says of their extent is often wrong."""
    sheet.reset_dimensions()
    for number, cells in enumerate(sheet.rows, start=1):
        if number > LAST_ROW:
            raise InputError(f"'{path}' has more rows than a sheet can hold; is it whole?")
        if any(cell.value is not None or cell.data_type == "f" for cell in cells):
            yield number, cells


def _shown(where: str, cell: Any, formulas: Formulas) -> str:
    """The text of a cell; empty if it is. Raises InputError for an error, and a formula whose value was not saved."""
    value = cell.value
    if value is None:
        if cell.data_type == "n" and hasattr(cell, "row") and (cell.row, cell.column) in formulas():
            raise InputError(
                f"{where}: cell {cell.coordinate} holds a formula whose value is not in the file; open and save it in "
                f"a spreadsheet program"
            )
        return ""
    if cell.data_type == "e":
        raise InputError(f"{where}: cell {cell.coordinate} holds the error {value}; correct or empty it")
    if isinstance(value, str):
        return unescape(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return ReadAsText(_number(value, cell.number_format))
    return as_text(value)


def _number(value: float, number_format: str) -> str:
    """A number with the decimals, thousands and percent that its format shows; without one, as short as can be."""
    if found := _NUMBER_FORMAT.fullmatch(number_format):
        thousands, decimals, percent = found.groups(default="")
        exact = Decimal(repr(value)) * (100 if percent else 1)
        rounded = exact.quantize(Decimal(1).scaleb(-len(decimals)), ROUND_HALF_UP)
        return f"{rounded:{',' if thousands else ''}f}{percent}"
    if isinstance(value, float) and abs(value) < EXACT:
        return str(int(value)) if value.is_integer() else f"{value:.15g}"
    return str(value)


def _formulas(path: Path, layout: Layout) -> set[Place]:
    """Where formulas stand: read anew, as the file gives either formulas or values."""
    with _workbook(path, layout, values=False) as book:
        cells = (cell for _, row in _filled(path, book[layout.inside]) for cell in row)
        return {(cell.row, cell.column) for cell in cells if cell.data_type == "f"}


@contextmanager
def _workbook(path: Path, layout: Layout, values: bool = True) -> Iterator[Any]:
    """The opened workbook; of a damaged one openpyxl raises errors of every kind."""
    try:
        with open_bytes(path, layout, seekable=True) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of parts that hold no cells
            book = openpyxl.load_workbook(file, read_only=True, data_only=values, keep_links=False)
            yield book
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"'{path}' is not a readable workbook ({one_line(error)}); save it as XLSX anew") from error
