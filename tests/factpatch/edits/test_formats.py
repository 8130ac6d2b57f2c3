"""Files of every format, whole and broken."""

from __future__ import annotations

import csv
import json

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factpatch.edits.formats import CHUNK, READERS, read_file
from factpatch.errors import InputError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
PROBES = st.lists(st.fixed_dictionaries({"prompt": TEXT, "target": TEXT}), min_size=1, max_size=3)
ROWS = st.lists(
    st.fixed_dictionaries(
        {"prompt": TEXT, "target": TEXT},
        optional={"subject": TEXT, "paraphrases": st.lists(TEXT, min_size=1, max_size=3), "locality": PROBES},
    ),
    min_size=1,
    max_size=5,
)
quickly = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(path, rows):
    """Write rows in the format that the path's ending names."""
    names = sorted({name for row in rows for name in row})
    if path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        columns = {name: [row.get(name) for row in rows] for name in names}
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            for row in rows:
                writer.writerow({name: v if isinstance(v, str) else json.dumps(v) for name, v in row.items()})
    return path


def without_nulls(row):
    return {name: value for name, value in row.items() if value is not None}


@pytest.mark.parametrize("ending", READERS)
@quickly
@given(rows=ROWS)
def test_what_was_written_is_read(ending, tmp_path, rows):
    read = list(read_file(write(tmp_path / f"edits{ending}", rows)))
    assert [number for number, _ in read] == list(range(1, len(rows) + 1))
    if ending == ".parquet":  # its columns are the same in every row
        read = [(number, without_nulls(row)) for number, row in read]
    assert [row for _, row in read] == rows


@pytest.mark.parametrize("ending", READERS)
@quickly
@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_in_one_line(ending, tmp_path, content):
    path = tmp_path / f"edits{ending}"
    path.write_bytes(content)
    try:
        list(read_file(path))
    except InputError as error:
        message = str(error)
    else:
        return
    assert str(path) in message
    assert "\n" not in message


@quickly
@given(text=st.text(alphabet='[]{}",:1a \n', max_size=40))
def test_nearly_json_is_read_or_refused(tmp_path, text):
    path = tmp_path / "edits.json"
    path.write_text(text, encoding="utf-8")
    try:
        rows = [row for _, row in read_file(path)]
    except InputError:
        return
    assert all(isinstance(row, dict) for row in rows)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"prompt": "p"}\n\n{"prompt": \n', "a.jsonl row 3: not JSON"),
        ("a.jsonl", '["p", "t"]\n', "a.jsonl row 1: not an object but list"),
        ("a.json", '[{"prompt": "p"}, {"prompt" "t"}]', "a.json row 2: not JSON (Expecting ':' delimiter)"),
        ("a.json", '[{"prompt": "p"} {"prompt": "q"}]', "a.json row 1: not JSON (expected ',' or ']'"),
        ("a.json", '[{"prompt": "p"},', "a.json row 2: not JSON (the file ends before its list does)"),
        ("a.json", '[{"prompt": "p"}] tail', "a.json row 2: not JSON (there is more after the end"),
        ("a.json", '["p"]', "a.json row 1: not an object but str"),
        (
            "a.jsonl",
            '{"prompt": "p", "target": "t", "target": "u"}',
            "a.jsonl row 1: field 'target' stands twice",
        ),
        ("a.json", '[{"p": 1}, {"p": {"q": 1, "q": 2}}]', "a.json row 2: field 'q' stands twice"),
        ("a.csv", "prompt,target,target\np,t,u\n", "a.csv': the header names 'target' twice"),
        ("a.json", "[" * 100_000, "a.json row 1: not JSON"),
        ("a.csv", 'prompt,target\np,t\n"p,t\n', "a.csv row 2: not CSV (unexpected end of data)"),
        ("a.csv", "prompt,target\np,t,u\n", "a.csv row 1: more cells than the header"),
        ("a.parquet", "PAR1", "a.parquet' is not readable Parquet"),
        ("a.txt", "prompt", "a.txt' has an unknown ending"),
        ("edits", "\x00", "edits' has an unknown ending"),
    ],
)
def test_broken_files_name_file_and_row(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        list(read_file(path))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        (".json", ""),
        (".json", " \n"),
        (".json", "[]"),
        (".jsonl", ""),
        (".jsonl", " \n"),
        (".csv", ""),
        (".csv", "prompt\n"),
    ],
)
def test_empty_files_are_refused(tmp_path, ending, content):
    path = tmp_path / f"edits{ending}"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="is empty"):
        list(read_file(path))


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".csv"])
def test_binary_and_other_encodings_are_refused(tmp_path, ending):
    path = tmp_path / f"edits{ending}"
    path.write_bytes(b"\xff\xfe" + '{"prompt": "p"}'.encode("utf-16-le"))
    with pytest.raises(InputError, match="is not UTF-8 text"):
        list(read_file(path))


def test_json_may_be_objects_one_after_the_other(tmp_path):
    path = tmp_path / "edits.json"
    path.write_text('\ufeff{"prompt": "p"}\n{"prompt":\n "q"}', encoding="utf-8")
    assert [row["prompt"] for _, row in read_file(path)] == ["p", "q"]


def test_an_item_may_be_longer_than_what_is_read_at_a_time(tmp_path):
    rows = [{"prompt": "é" * n, "target": "t"} for n in (CHUNK - 20, 3 * CHUNK, 1)]
    path = tmp_path / "edits.json"
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    assert [row for _, row in read_file(path)] == rows


def test_csv_keeps_text_as_text(tmp_path):
    path = tmp_path / "edits.csv"
    path.write_text('prompt,target,subject,rephrase\nCode,007,NA,"[""a"", ""b""]"\nTag,true,,[see note\n')
    assert [row for _, row in read_file(path)] == [
        {"prompt": "Code", "target": "007", "subject": "NA", "rephrase": ["a", "b"]},
        {"prompt": "Tag", "target": "true", "rephrase": "[see note"},
    ]
