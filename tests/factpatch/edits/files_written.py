"""Files of every format, whole and broken, as programs write them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile

import openpyxl
import pyarrow
import pyarrow.parquet
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from factpatch.edits.formats import read_file

# No zero bytes, as a file with many is taken for UTF-16; for workbooks no control characters, which XML can't hold.
ANY = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXT = st.text(ANY, min_size=1, max_size=20)
CELL = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]), max_size=20).map("a {}".format)
quickly = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

ENCODINGS = {"utf-8": "UTF-8", "utf-8-sig": "UTF-8", "utf-16": "UTF-16", "utf-32": "UTF-32"}
SEPARATORS = (",", ";", "\t", "|")
WESTERN = [
    "Die Hauptstadt von Österreich heißt",
    "La capitale de la Côte d’Ivoire est",
    "Wie heißt Köln?",
    "Für 5 € heißt Köln schön",
]


def rows_of(text):
    probes = st.lists(st.fixed_dictionaries({"prompt": text, "target": text}), min_size=1, max_size=3)
    row = st.fixed_dictionaries(
        {"prompt": text.map("p{}".format), "target": text.map("t{}".format)},
        optional={"subject": text, "paraphrases": st.lists(text, min_size=1, max_size=3), "locality": probes},
    )
    return st.lists(row, min_size=1, max_size=5)


def encode(ending, rows, encoding="utf-8", separator=","):
    """The bytes of a file with these rows, by the libraries that programs write them with."""
    names = sorted({name for row in rows for name in row})
    table = [[value if isinstance(value, str) else json.dumps(value) for value in map(row.get, names)] for row in rows]
    table = [["" if cell == "null" else cell for cell in cells] for cells in table]
    if ending == ".parquet":
        file = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table({name: [row.get(name) for row in rows] for name in names}), file)
        return file.getvalue()
    if ending == ".xlsx":
        return workbook([names, *table])
    if ending == ".json":
        return json.dumps(rows, ensure_ascii=False).encode(encoding)
    if ending in (".jsonl", ".ndjson"):
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode(encoding)
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=separator).writerows([names, *table])
    return file.getvalue().encode(encoding)


def workbook(*sheets, formats=()):
    """The bytes of a workbook; `formats` are number formats by cell of its first sheet."""
    book, file = openpyxl.Workbook(), io.BytesIO()
    book.remove(book.active)
    for sheet in sheets:
        made = book.create_sheet()
        for cells in sheet:
            made.append([None if cell == "" else cell for cell in cells])
    for cell, number_format in dict(formats).items():
        book.worksheets[0][cell].number_format = number_format
    book.save(file)
    return file.getvalue()


def pack(path, content, packing):
    """Write the bytes as they are, gzipped or in a zip; the path of that file."""
    if packing == ".gz":
        path = path.with_name(path.name + ".gz")
        content = gzip.compress(content, 1)
    elif packing == ".zip":
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"folder/{path.name}", content)
            archive.writestr(f"__MACOSX/folder/._{path.name}", b"\0")
            archive.writestr("README.md", "# Edits")
        path, content = path.with_suffix(".zip"), file.getvalue()
    path.write_bytes(content)
    return path


def read(path):
    return [row for _, row in read_file(path)]


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def without_nulls(row):
    return {name: value for name, value in row.items() if value is not None}
