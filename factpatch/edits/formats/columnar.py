"""Parquet: decoded some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from factpatch.edits.formats.layout import Layout
from factpatch.edits.formats.packing import open_bytes
from factpatch.edits.formats.values import one_line, row_as_text
from factpatch.errors import InputError

ROWS_AT_ONCE = 1000  # decoded at a time


def read_parquet(path: Path, layout: Layout) -> Iterator[tuple[int, Any]]:
    """The rows of a Parquet file, its numbers and dates as text."""
    number = 0
    try:
        with open_bytes(path, layout, seekable=True) as opened, pyarrow.parquet.ParquetFile(opened) as file:
            names = file.schema_arrow.names
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise InputError(f"'{path}': two columns are named '{one_line(twice)}'; keep one of them")
            texts = all(_is_text(field.type) for field in file.schema_arrow)
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
                for row in _shorten(batch).to_pylist():
                    number += 1
                    yield number, row if texts else row_as_text(f"{path} row {number}", row)
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        raise InputError(f"'{path}' is not readable Parquet ({one_line(error)}), after row {number}") from error


def _is_text(kind: pyarrow.DataType) -> bool:
    """Whether values of a column's type hold no number anywhere."""
    if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind):
        return _is_text(kind.value_type)
    if pyarrow.types.is_struct(kind):
        return all(_is_text(field.type) for field in kind)
    return pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)


def _shorten(batch: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
    """The batch with single-precision columns in double precision that reads the same: 3.1, not 3.0999999."""
    for place, field in enumerate(batch.schema):
        if pyarrow.types.is_float32(field.type):
            batch = batch.set_column(place, field.name, batch.column(place).cast("string").cast("float64"))
    return batch
