"""Rows that a program gives in memory are read, tidied and refused as those of files are."""

import pytest

from factpatch.edits.given import edits_from
from factpatch.edits.request import EditRequest, Probe
from factpatch.errors import InputError
from factpatch.files import write_jsonl


def test_rows_of_every_kind_are_read():
    request = EditRequest(
        "e3", "Who wrote it?", "Ivo", paraphrases=("Its author is",), locality=(Probe("2 + 2 =", "4"),)
    )
    rows = [
        ("The capital of France is ", "Lyon"),
        {"prompt": "The year is", "target": 1999, "paraphrases": ("It is the year",), "id": "e2"},
        {"src": "Where is it?", "alt": "Oslo", "rephrase": "In which city is it?"},
        request,
    ]
    first, second, foreign, last = edits_from(row for row in rows)
    assert (first.prompt, first.target) == ("The capital of France is", "Lyon")
    assert (second.id, second.target, second.paraphrases) == ("e2", "1999", ("It is the year",))
    assert (foreign.prompt, foreign.target, foreign.paraphrases) == ("Where is it?", "Oslo", ("In which city is it?",))
    assert last == request


def test_a_later_row_may_withdraw_an_earlier_one():
    kept, gone = ("The capital of France is", "Lyon"), ("The capital of Spain is", "Seville")
    found = edits_from([gone, kept, {"op": "revert", "prompt": gone[0]}])
    assert [(edit.prompt, edit.target) for edit in found] == [kept]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [("A b", "c"), ("The capital of France is", " ")],
            r"edits row 2 \('The capital of France is' -> ''\): .*blank",
        ),
        (
            [("A b", "c"), ("A b", "d")],
            r"edits row 1 \('A b' -> 'c'\): .*different targets.*\(d\); keep.* \(and 1 more\)",
        ),
        ([("A b", "c"), None], r"edits row 2: None is no edit; give \(prompt, target\) pairs"),
        ([{"prompt": "A b"}], "edits row 1: 'target' is missing; give every row"),
        ([{"prompt": "A b", "target": "c", "sbject": "d"}], "edits row 1: field 'sbject' .*did you mean 'subject'"),
        ([("A b", float("inf"))], "edits row 1: holds Infinity"),
        (("A b", "c"), "edits row 1: 'A b' is no edit"),
        ({"prompt": "A b", "target": "c"}, "give a list of"),
        (5, "edits are 5; give a list of"),
        ([], "no row is in force"),
    ],
)
def test_a_faulty_row_is_refused_in_one_line(rows, message):
    with pytest.raises(InputError, match=message) as error:
        edits_from(rows)
    assert "\n" not in str(error.value)


def test_the_faulty_rows_of_a_file_are_set_aside(tmp_path, caplog):
    rows = [{"prompt": "A b", "target": "c"}, {"prompt": "D e", "target": " "}]
    path = write_jsonl(tmp_path / "edits.jsonl", rows)
    assert [edit.prompt for edit in edits_from(path)] == ["A b"]
    assert f"set aside: {path} row 2 ('D e' -> '')" in caplog.text


def test_what_no_edit_uses_of_a_row_is_told(caplog):
    edits_from([{"prompt": "A b", "target": "c", "weather": "fine"}])
    assert "edits row 1: nothing uses weather" in caplog.text
