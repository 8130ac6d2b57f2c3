"""Files of every format, whole and broken, as programs write them."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factpatch.edits.formats import CHUNK_CHARACTERS, FILE_FORMATS, find_layout, read_file
from factpatch.errors import InputError

# No zero bytes, as a file with many is taken for UTF-16; for workbooks no control characters, which XML can't hold.
from tests.factpatch.edits.files_written import (
    CELL,
    ENCODINGS,
    SEPARATORS,
    TEXT,
    WESTERN,
    encode,
    pack,
    quickly,
    read,
    rows_of,
    without_nulls,
    workbook,
    written,
)


@pytest.mark.parametrize("ending", FILE_FORMATS)
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


@pytest.mark.parametrize("ending", [*FILE_FORMATS, ".csv.gz", ".zip"])
@quickly
@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_in_one_line(ending, tmp_path, content):
    accepted_or_one_line(written(tmp_path, f"edits{ending}", content))


@pytest.mark.parametrize("ending", [*FILE_FORMATS, ".jsonl.gz", ".csv.zip"])
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
    rows = [{"prompt": "é" * n, "target": "t"} for n in (CHUNK_CHARACTERS - 20, 3 * CHUNK_CHARACTERS, 1)]
    assert read(written(tmp_path, "edits.json", json.dumps(rows, ensure_ascii=False))) == rows
    wrapped = json.dumps({"version": 1, "rows": rows, "pages": 12}, ensure_ascii=False)
    for blanks in range(CHUNK_CHARACTERS - 30, CHUNK_CHARACTERS):  # a number may go on where what was read ends
        assert len(read(written(tmp_path, "edits.json", wrapped[0] + " " * blanks + wrapped[1:]))) == 3
