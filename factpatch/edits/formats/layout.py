"""How a file is written: its format, compression, encoding, separator and where its rows lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Shape = Literal["rows", "list", "by key", "by column", "split"]

_SHAPES = {"by key": "rows by key", "by column": "by columns", "split": "columns and data apart"}


@dataclass(frozen=True)
class Layout:
    """How a file is written.

    Attributes:
        format: CSV, TSV, XLSX, JSON, JSON Lines or Parquet.
        compression: gzip or zip. member: the one file of a zip that is read.
        encoding: of its text, such as UTF-8 or Windows-1252; None if it is no text.
        separator: what stands between the cells of a CSV file.
        shape: how the rows of a JSON file lie: one after the other, in one of several fields (`inside` names it), by
            key, or by columns in one of pandas' two ways.
        inside: the name of the list that holds the rows, or of the sheet of a workbook.
        renamed: header names, as written, that were read as the native field of that name.
    """

    format: str
    compression: Literal["gzip", "zip"] | None = None
    member: str | None = None
    encoding: str | None = None
    separator: str | None = None
    shape: Shape = "rows"
    inside: str | None = None
    renamed: tuple[str, ...] = ()

    def describe(self, numbers: int = 0) -> str:
        """In words, with how many numbers were read as text: 'CSV with ";" in Windows-1252, 3 numbers read as text'."""
        words = self.format
        if self.separator and (self.format, self.separator) != ("TSV", "\t"):
            words += " with " + ("tabs" if self.separator == "\t" else f'"{self.separator}"')
        if self.shape in _SHAPES:
            words += f", {_SHAPES[self.shape]}"
        if self.inside is not None:
            words += f', {"sheet" if self.format == "XLSX" else "list"} "{self.inside}"'
        if self.encoding not in (None, "UTF-8"):
            words += f" in {self.encoding}"
        if self.compression:
            words += f", {self.compression}" + (f' ("{self.member}")' if self.member else "")
        words += "".join(f', column "{name}" read as {name.lower()}' for name in self.renamed)
        if numbers:
            words += f", {numbers} number{'s' if numbers > 1 else ''} read as text"
        return words

    def __str__(self) -> str:
        return self.describe()
