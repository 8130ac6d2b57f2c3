"""Files of every format, whole and broken, as programs write them."""

from __future__ import annotations

import csv
import datetime
import decimal
import gzip
import io
import json
import random
import tracemalloc
import zipfile
from itertools import islice

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factpatch.edits.formats import CHUNK, READERS, Layout, count_read_as_text, find_layout, has_known_ending, read_file
from factpatch.errors import InputError

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
    "5 € für Zoë",
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


@pytest.mark.parametrize("ending", READERS)
@quickly
@given(data=st.data())
def test_what_was_written_is_read(ending, tmp_path, data):
    rows = data.draw(rows_of(CELL if ending == ".xlsx" else TEXT))
    encoding, separator, packing = (
        data.draw(st.sampled_from(one)) for one in ([*ENCODINGS], SEPARATORS, ["", ".gz", ".zip"])
    )
    path = pack(tmp_path / f"edits{ending}", encode(ending, rows, encoding, separator), packing)
    found = list(read_file(path))
    assert [number for number, _ in found] == list(range(1, len(rows) + 1))
    if ending == ".parquet":  # its columns are the same in every row
        found = [(number, without_nulls(row)) for number, row in found]
    assert [row for _, row in found] == rows
    layout = find_layout(path)
    assert layout.encoding in (None, ENCODINGS[encoding])
    assert layout.separator in (None, separator)
    assert layout.compression == {"": None, ".gz": "gzip", ".zip": "zip"}[packing]


@pytest.mark.parametrize("ending", [".csv", ".json", ".jsonl"])
@settings(quickly, max_examples=5)
@given(rows=rows_of(st.sampled_from(WESTERN)), separator=st.sampled_from(SEPARATORS))
def test_windows_1252_is_read_and_said(ending, tmp_path, rows, separator):
    path = written(tmp_path, f"edits{ending}", encode(ending, rows, "cp1252", separator))
    assert read(path) == rows
    assert "Windows-1252" in str(find_layout(path))


@pytest.mark.parametrize(
    ("text", "encoding", "name"),
    [
        ("Die Hauptstadt von Kiribati heißt,Köln", "cp1252", "Windows-1252"),
        ("The president’s name is,Bob", "cp1252", "Windows-1252"),
        ("Café,1", "cp1252", "Windows-1252"),
        ("Stolicą Polski jest,Łódź", "cp1250", "Windows-1250"),
        ("Столица России,Казань", "cp1251", "Windows-1251"),
        ("Η πρωτεύουσα της Ελλάδας είναι,Θεσσαλονίκη", "cp1253", "Windows-1253"),
        ("Türkiye'nin başkenti,İstanbul", "cp1254", "Windows-1254"),
        ("عاصمة مصر هي,الإسكندرية", "cp1256", "Windows-1256"),
        ("日本の首都は,大阪です。", "cp932", "Shift_JIS"),
        ("中国的首都是,上海", "gb18030", "GB18030"),
        ("대한민국의 수도는,부산", "cp949", "EUC-KR"),
        ("Столица России,Казань", "koi8_r", "KOI8-R"),
        ("Die Hauptstadt heißt,Köln", "mac_roman", "Mac"),
    ],
)
def test_other_encodings_are_told_by_few_words(tmp_path, text, encoding, name):
    path = written(tmp_path, "edits.csv", f"prompt,target\n{text}\n".encode(encoding))
    assert read(path) == [dict(zip(("prompt", "target"), text.split(","), strict=True))]
    assert name in str(find_layout(path))


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_one_byte_in_the_last_of_many_rows_tells_the_encoding(tmp_path, encoding):
    lines = [f"The capital of region {number} is;City {number}" for number in range(100_000)]
    text = "\n".join(["prompt;target", *lines, "Die Hauptstadt von Österreich heißt;Köln"])
    path = written(tmp_path, "edits.csv", text.encode(encoding))
    assert find_layout(path).encoding == {"utf-8": "UTF-8", "cp1252": "Windows-1252"}[encoding]
    *_, (number, row) = read_file(path)
    assert (number, row["target"]) == (100_001, "Köln")


def test_a_letter_far_down_tells_apart_what_reads_alike_above(tmp_path):
    lines = ["Die größte Stadt heißt,Köln"] * 20_000 + ["Największe miasto Śląska to,Łódź", "Gdańsk leży w,Kraków"]
    path = written(tmp_path, "edits.csv", "\n".join(["prompt,target", *lines]).encode("cp1250"))
    assert find_layout(path).encoding == "Windows-1250"
    assert read(path)[-2]["target"] == "Łódź"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            "prompt,target\n½ of 3 is,1½\n".encode("cp1252"),
            "byte 0xBD in line 2, but Windows-1252 or MacLatin2; convert it",
        ),
        (
            "prompt,target\nKöln,Zoë\nÖl,".encode() + "größer\n".encode("cp1252"),
            "by byte 0xF6 in line 3, nor all in an",
        ),
        ("prompt,target\nheißt,Köln".encode()[:-3], "is not UTF-8 text, by byte 0xC3 in line 2"),
        ("prompt,target\np,t\n".encode("utf-16-le"), "seems UTF-16 without its mark"),
        ("prompt,target\np,t\n".encode("utf-16")[:-1], "begins as UTF-16 text, which byte 0x0A in line 3 is not"),
        (
            "prompt,target\nheißt,Köln\nÄrger,größer\n".encode("cp1252") + b"\x81",
            "seems Windows-1252 text, but byte 0x81 in line 4 is not",
        ),
    ],
)
def test_an_encoding_that_is_not_sure_is_not_guessed(tmp_path, content, words):
    path = written(tmp_path, "edits.csv", content)
    with pytest.raises(InputError) as caught:
        read(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", [*READERS, ".csv.gz", ".zip"])
@quickly
@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_in_one_line(ending, tmp_path, content):
    accepted_or_one_line(written(tmp_path, f"edits{ending}", content))


@pytest.mark.parametrize("ending", [*READERS, ".jsonl.gz", ".csv.zip"])
def test_a_file_with_any_bytes_changed_is_read_or_refused_in_one_line(ending, tmp_path):
    rows = [{"prompt": f"p{n}", "target": "Köln", "paraphrases": ["q", "r"]} for n in range(3)]
    ending, _, packing = ending[1:].partition(".")
    path = pack(tmp_path / f"edits.{ending}", encode(f".{ending}", rows), packing and f".{packing}")
    content, dice = path.read_bytes(), random.Random(ending + packing)
    for _ in range(120):
        at, length = dice.randrange(len(content)), dice.choice([0, 1, 1, 1, 4, 50])
        other = dice.choice(
            [b"", dice.randbytes(1), dice.choice([b'"', b"{", b"[", b",", b"\n", b"\0", b"\xff", b"1e999"])]
        )
        path.write_bytes(content[:at] + other + content[at + length :])
        accepted_or_one_line(path)


def accepted_or_one_line(path):
    message = ""
    try:
        rows = read(path)
    except InputError as error:
        message = str(error)
    else:
        assert all(isinstance(row, dict) for row in rows)
        return
    assert str(path) in message
    assert "\n" not in message


@quickly
@given(text=st.text(alphabet='[]{}",:1a \n', max_size=40))
def test_nearly_json_is_read_or_refused(tmp_path, text):
    accepted_or_one_line(written(tmp_path, "edits.json", text))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"prompt": "p"}\n\n{"prompt": \n', "a.jsonl row 3: not JSON"),
        ("a.jsonl", '["p", "t"]\n', "a.jsonl row 1: not an object but list"),
        ("a.jsonl", "7\n", "a.jsonl row 1: not an object but number"),
        ("a.json", '[{"prompt": "p"}, {"prompt" "t"}]', "a.json row 2: not JSON (Expecting ':' delimiter)"),
        ("a.json", '[{"prompt": "p"} {"prompt": "q"}]', "a.json row 1: not JSON (expected ',' or ']'"),
        ("a.json", '[{"prompt": "p"},', "a.json row 2: not JSON (the file ends before its list does)"),
        ("a.json", '[{"prompt": "p"}] tail', "a.json row 2: not JSON (there is more after the end"),
        ("a.json", '["p"]', "a.json row 1: not an object but str"),
        ("a.json", '{"data": [{"prompt": "p"}, {"prompt" "t"}]}', "a.json row 2: not JSON (Expecting ':'"),
        ("a.json", '{"data": [{"prompt": "p"}], "data": []}', "a.json row 1: field 'data' stands twice"),
        ("a.json", '{"data": [{"prompt": "p"}]', "a.json row 1: not JSON (expected ',' or '}'"),
        (
            "a.json",
            '{"train": [{"prompt": "p"}], "test": [{"prompt": "q"}]}',
            "several lists of objects ('train', 'test')",
        ),
        ("a.json", '{"prompt": ["p", "q"], "target": ["t"]}', "columns of different lengths"),
        ("a.json", '{"prompt": {"0": "p", "0": "q"}, "target": {}}', "field 'prompt': field '0' stands twice"),
        ("a.json", '{"columns": ["prompt", "target"], "data": [["p", "t"], ["q"]]}', "a.json row 2: not 2 cells"),
        ("a.jsonl", '{"prompt": "p"}\n{"prompt": "q", "target": Infinity}\n', "a.jsonl row 2: holds Infinity"),
        ("a.json", '{"prompt": {"0": "p"}, "target": {"0": -Infinity}}', "a.json, field 'target': holds Infinity"),
        (
            "a.jsonl",
            '{"prompt": "p", "target": "t", "target": "u"}',
            "a.jsonl row 1: field 'target' stands twice",
        ),
        ("a.json", '[{"p": 1}, {"p": {"q": 1, "q": 2}}]', "a.json row 2: field 'q' stands twice"),
        ("a.csv", "prompt,target,target\np,t,u\n", "a.csv': the header names 'target' twice"),
        ("a.json", "[" * 100_000, "a.json row 1: not JSON"),
        ("a.csv", 'prompt,target\np,t\n"p,t\n', "a.csv row 2: not CSV (unexpected end of data)"),
        (
            "a.csv",
            "prompt,target\np,t,u\n",
            "a.csv row 1: more cells than the header (3, not 2); cells are parted by ','",
        ),
        (
            "a.tsv",
            "prompt\ttarget\n\np\tt\tu\n",
            r"a.tsv row 2: more cells than the header (3, not 2); cells are parted by '\t'",
        ),
        ("a.csv", "a,b;c\nx,y;z\n", "a.csv': its separator may be ',' or ';'; write 'sep=,'"),
        (
            "a.csv",
            'prompt,locality\np,"[{""prompt"": 1, ""prompt"": 2}]"\n',
            "a.csv row 1: field 'prompt' stands twice",
        ),
        ("a.parquet", "PAR1", "a.parquet' is not readable Parquet"),
        ("a.xlsx", "prompt,target\n", "a.xlsx' is not a readable workbook"),
        ("a.jsonl.gz", '{"prompt": "p"}', "a.jsonl.gz' cannot be read (Not a gzipped file"),
        ("a.zip", "PK", "a.zip' cannot be unpacked"),
        ("a.txt", "prompt", "a.txt' has an unknown ending"),
        ("a.gz", "prompt", "a.gz' has an unknown ending"),
        ("edits", "\x00", "edits' has an unknown ending"),
    ],
)
def test_broken_files_name_file_and_row(tmp_path, name, content, message):
    path = written(tmp_path, name, content)
    with pytest.raises(InputError) as caught:
        read(path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        (".json", ""),
        (".json", " \n"),
        (".json", "[]"),
        (".json", '{"prompt": [], "target": []}'),
        (".jsonl", ""),
        (".jsonl", " \n"),
        (".csv", ""),
        (".csv", "prompt\n"),
        (".csv", "prompt,target\n,,\n , \n\n"),
        (".xlsx", workbook([[]])),
        (".xlsx", workbook([["prompt", "target"]])),
    ],
)
def test_empty_files_are_refused(tmp_path, ending, content):
    with pytest.raises(InputError, match="is empty"):
        read(written(tmp_path, f"edits{ending}", content))


def test_json_may_be_objects_one_after_the_other(tmp_path):
    path = written(tmp_path, "edits.json", '\ufeff{"prompt": "p"}\n{"prompt":\n "q"}')
    assert [row["prompt"] for row in read(path)] == ["p", "q"]


def test_an_item_may_be_longer_than_what_is_read_at_a_time(tmp_path):
    rows = [{"prompt": "é" * n, "target": "t"} for n in (CHUNK - 20, 3 * CHUNK, 1)]
    assert read(written(tmp_path, "edits.json", json.dumps(rows, ensure_ascii=False))) == rows
    wrapped = json.dumps({"version": 1, "rows": rows, "pages": 12}, ensure_ascii=False)
    for blanks in range(CHUNK - 30, CHUNK):  # a number may go on where what was read ends
        assert len(read(written(tmp_path, "edits.json", wrapped[0] + " " * blanks + wrapped[1:]))) == 3


ROWS = [{"prompt": "p", "target": "t"}, {"prompt": "q", "target": "u"}]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"version": 1, "data": ROWS}, 'JSON, list "data"'),
        ({"edits": ROWS, "tags": ["a"], "made": {"by": "x"}}, 'JSON, list "edits"'),
        ({"0": ROWS[0], "1": ROWS[1]}, "JSON, rows by key"),
        ({"prompt": {"0": "p", "1": "q"}, "target": {"0": "t", "1": "u"}}, "JSON, by columns"),
        ({"prompt": ["p", "q"], "target": ["t", "u"]}, "JSON, by columns"),
        (
            {"columns": ["prompt", "target"], "index": [0, 1], "data": [["p", "t"], ["q", "u"]]},
            "JSON, columns and data apart",
        ),
        (
            {
                "features": [{"feature_idx": 0, "name": "prompt"}],
                "rows": [{"row_idx": n, "row": row, "truncated_cells": []} for n, row in enumerate(ROWS)],
                "num_rows_total": 2,
            },
            'JSON, list "rows"',
        ),
    ],
)
def test_json_in_a_wrapper_or_by_columns(tmp_path, value, words):
    path = written(tmp_path, "edits.json", json.dumps(value, indent=2))
    assert list(read_file(path)) == [(1, ROWS[0]), (2, ROWS[1])]
    assert str(find_layout(path)) == words


@pytest.mark.parametrize("name", ["edits.csv", "edits.jsonl.gz", "edits.json", "edits.parquet"])
def test_many_rows_take_little_memory(tmp_path, name):
    rows = [{"prompt": f"Österreichs Region {number}", "target": "Köln"} for number in range(30_000)]
    if name == "edits.json":
        path = written(tmp_path, name, json.dumps({"data": rows}, ensure_ascii=False))
    else:
        ending, _, packing = name.removeprefix("edits.").partition(".")
        content = encode(f".{ending}", rows, "cp1252" if ending == "csv" else "utf-8", ";")
        path = pack(tmp_path / f"edits.{ending}", content, packing and f".{packing}")
    found = find_layout(path)
    tracemalloc.start()
    count = sum(1 for _ in islice(read_file(path, found), 5_000))  # kept rows would show here already
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (count, peak < 1_500_000) == (5_000, True)


def test_one_row_with_lists_of_its_own_is_no_wrapper(tmp_path):
    row = {"locality": [{"prompt": "q", "target": "u"}], "prompt": "p", "target": "t"}
    assert read(written(tmp_path, "edits.json", json.dumps(row))) == [row]


def test_numbers_are_read_as_they_are_written_and_counted(tmp_path):
    text = (
        '{"id": 7, "prompt": 12, "target": 3.10, "target_old": [1e5, true], "paraphrases": null, '
        '"locality": [{"prompt": "q", "target": 123456789012345678901234567890}], "subject": NaN}'
    )
    (row,) = read(written(tmp_path, "edits.jsonl", text))
    assert row == {
        "id": "7",
        "prompt": "12",
        "target": "3.10",
        "target_old": ["1e5", "true"],
        "paraphrases": None,
        "locality": [{"prompt": "q", "target": "123456789012345678901234567890"}],
        "subject": None,
    }
    assert count_read_as_text(row) == 5  # ids aside
    assert Layout("JSON Lines").describe(numbers=5) == "JSON Lines, 5 numbers read as text"


def test_csv_keeps_text_as_text(tmp_path):
    content = (
        'prompt,target,subject,rephrase\nCode,007,NA,"[""a"", ""b""]"\nTag,true,,[see note\n'
        "Name,None,nan,\"['c', 1.5]\"\n"
    )
    rows = read(written(tmp_path, "edits.csv", content))
    assert rows == [
        {"prompt": "Code", "target": "007", "subject": "NA", "rephrase": ["a", "b"]},
        {"prompt": "Tag", "target": "true", "rephrase": "[see note"},
        {"prompt": "Name", "target": "None", "subject": "nan", "rephrase": ["c", "1.5"]},
    ]
    assert sum(map(count_read_as_text, rows)) == 1


@pytest.mark.parametrize(
    ("content", "rows", "words"),
    [
        ("prompt,target,owner\np,t,ann\n,,\n\nq,u,\n,,\n", {1: "p", 4: "q"}, 'CSV with ","'),
        ("\ufeffsep=;\r\nprompt;target\r\np;t, and more\r\n", {1: "p"}, 'CSV with ";"'),
        ("\n,prompt,target,\n0,p,t,\n", {1: "p"}, 'CSV with ","'),
        ("prompt|target\rp|t\r", {1: "p"}, 'CSV with "|"'),
        ('"prompt";"target"\n"p; ""q""\nr";"t"\n', {1: 'p; "q"\nr'}, 'CSV with ";"'),
        ("prompt,target\np,t,,\n", {1: "p"}, 'CSV with ","'),
        (
            " Prompt ;TARGET;Note\np;t;n\n",
            {1: "p"},
            'CSV with ";", column "Prompt" read as prompt, column "TARGET" read as target',
        ),
    ],
)
def test_tables_as_programs_write_them(tmp_path, content, rows, words):
    path = written(tmp_path, "edits.csv", content)
    assert {number: row["prompt"] for number, row in read_file(path)} == rows
    assert all("target" in row for row in read(path))
    assert str(find_layout(path)) == words


def test_header_names_that_differ_by_case_alone_are_kept_apart(tmp_path):
    assert read(written(tmp_path, "edits.csv", "prompt,Prompt,target\np,q,t\n")) == [
        {"prompt": "p", "Prompt": "q", "target": "t"}
    ]


def test_a_workbook_shows_its_values(tmp_path):
    sheet = [
        [None, None, None],
        [None, "Prompt", "target "],
        ["1", "whole", 1969.0],
        [],
        ["2", "decimals", 3.1],
        ["3", "percent", 0.055],
        ["4", "date", datetime.datetime(1969, 7, 12)],
        ["5", "truth", True],
        ["6", "exact", 0.1 + 0.2],
        ["7", "thousands", 1234567],
        ["8", "lines\nand “quotes”", "x_x000D_y"],
    ]
    path = written(tmp_path, "edits.xlsx", workbook(sheet, formats={"C5": "0.00", "C6": "0.0%", "C10": "#,##0"}))
    rows = dict(read_file(path))
    targets = {1: "1969", 3: "3.10", 4: "5.5%", 5: "1969-07-12", 6: "true", 7: "0.3", 8: "1,234,567", 9: "x\ry"}
    assert {number: row["target"] for number, row in rows.items()} == targets
    assert rows[1] == {"column 1": "1", "prompt": "whole", "target": "1969"}
    assert str(find_layout(path)) == 'XLSX, sheet "Sheet", column "Prompt" read as prompt'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (workbook([["prompt"], ["p"]], [["prompt"], ["q"]]), "holds several sheets ('Sheet', 'Sheet1')"),
        (
            workbook([["prompt", "target"], ["p", "t"], ["q", "=1+1"]]),
            "row 2: cell B3 holds a formula whose value is not",
        ),
        (workbook([["prompt", "target"], ["p", "#N/A"]]), "row 1: cell B2 holds the error #N/A"),
        (workbook([["prompt", "target"], ["p", "t", "u"]]), "row 1: more cells than the header"),
    ],
)
def test_workbooks_that_are_refused(tmp_path, content, words):
    with pytest.raises(InputError) as caught:
        read(written(tmp_path, "edits.xlsx", content))
    assert words in str(caught.value)


def test_parquet_values_as_text(tmp_path):
    columns = {
        "prompt": pyarrow.array([1969, 2**60]),
        "target": pyarrow.array([0.1, float("nan")]),
        "subject": pyarrow.array([3.1, None], pyarrow.float32()),
        "source": pyarrow.array([decimal.Decimal("3.10"), None]),
        "expires": pyarrow.array([datetime.datetime(2030, 1, 31), None]),
        "target_old": pyarrow.array([[True], []]),
        "locality": pyarrow.array([[{"prompt": "q", "target": 5}], None]),
    }
    path = tmp_path / "edits.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    first, second = read(path)
    assert list(first.values()) == [
        "1969", "0.1", "3.1", "3.10", "2030-01-31", ["true"], [{"prompt": "q", "target": "5"}],
    ]  # fmt: skip
    assert without_nulls(second) == {"prompt": str(2**60), "target_old": []}
    pyarrow.parquet.write_table(pyarrow.table({"prompt": ["p", "q"], "target": [1.0, float("inf")]}), path)
    with pytest.raises(InputError, match="row 2: holds Infinity"):
        read(path)


def test_a_zip_of_several_files_is_refused_with_their_names(tmp_path):
    with zipfile.ZipFile(tmp_path / "edits.zip", "w") as archive:
        archive.writestr("a.csv", "prompt")
        archive.writestr("b/c.jsonl", "{}")
    with pytest.raises(InputError, match=r"several files \('a.csv', 'b/c.jsonl'\); unpack it"):
        read(tmp_path / "edits.zip")
    with zipfile.ZipFile(tmp_path / "edits.zip", "w") as archive:
        archive.writestr("notes.txt", "prompt")
    with pytest.raises(InputError, match=r"holds no file that ends in \.json"):
        read(tmp_path / "edits.zip")


def test_known_endings():
    assert all(map(has_known_ending, ["a.CSV", "a.jsonl.gz", "a.zip", "b/a.xlsx"]))
    assert not any(map(has_known_ending, ["a.txt", "a.gz", "owner/set", "a.txt.gz"]))
