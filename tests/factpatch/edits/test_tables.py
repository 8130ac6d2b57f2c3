"""Files of every format, whole and broken, as programs write them."""

from __future__ import annotations

import datetime
import decimal
import json
import tracemalloc
import zipfile
from itertools import islice

import pyarrow
import pyarrow.parquet
import pytest

from factpatch.edits.formats import Layout, count_read_as_text, find_layout, has_known_ending, read_file
from factpatch.errors import InputError

# No zero bytes, as a file with many is taken for UTF-16; for workbooks no control characters, which XML can't hold.
from tests.factpatch.edits.files_written import encode, pack, read, without_nulls, workbook, written

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
