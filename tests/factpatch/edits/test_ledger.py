"""Folding files of edits: the active set, and what became of every other row."""

from __future__ import annotations

import sys
from datetime import date

import pytest

from factpatch.edits.ledger import fold, live_rows
from factpatch.edits.loading import Row
from factpatch.edits.request import request_id
from factpatch.errors import InputError

TODAY = date(2030, 6, 15)
REVERT = {"op": "revert"}


def ledger(*rows):
    """Rows from (file, prompt, target, more fields)."""
    return [
        Row(file, number, {"prompt": prompt, "target": target, **(more[0] if more else {})})
        for number, (file, prompt, target, *more) in enumerate(rows, start=1)
    ]


def states(*rows):
    """The state of each row, with the number of the row that brought it about."""
    return [
        f"{entry.state} {entry.by.number}" if entry.by else entry.state for entry in fold(ledger(*rows), TODAY)
    ]  # fmt: skip


def test_later_files_supersede_for_the_same_prompt():
    assert states(("1", "p", "a"), ("1", "q", "a"), ("2", "p", "b")) == ["superseded 3", "active", "active"]


def test_rows_of_one_file_that_contradict_each_other_do_not_count():
    rows = ("1", "p", "a"), ("1", "q", "a"), ("1", "p", "b")
    assert states(*rows) == ["contradicted 3", "active", "contradicted 1"]
    assert [row.number for row in live_rows(fold(ledger(*rows), TODAY))] == [1, 2, 3]  # validation still names them


def test_what_stood_before_a_contradiction_stays():
    assert states(("1", "p", "a"), ("2", "p", "b"), ("2", "p", "c")) == ["active", "contradicted 3", "contradicted 2"]


def test_a_later_file_settles_a_contradiction():
    rows = ("0", "p", "z"), ("1", "p", "a"), ("1", "p", "b"), ("2", "p", "c")
    assert states(*rows) == ["superseded 4", "superseded 4", "superseded 4", "active"]


def test_the_same_row_twice_counts_once():
    assert states(("1", "p", "a"), ("1", "p", "a"), ("2", "p", "b")) == ["superseded 3", "superseded 3", "active"]
    assert states(("1", "p", "a"), ("1", "p", "a")) == ["active", "repeated 1"]


def test_revert_removes_what_stands_before_it():
    assert states(("1", "p", "a"), ("1", "q", "a"), ("2", "p", "", REVERT)) == ["reverted 3", "active", "revert"]
    assert states(("1", "p", "a"), ("1", "p", "", REVERT), ("1", "p", "b")) == ["reverted 2", "revert", "active"]
    assert states(("1", "p", "a"), ("2", "p", "b"), ("3", "p", "", REVERT)) == ["superseded 2", "reverted 3", "revert"]


def test_a_revert_may_name_the_id_alone():
    rows = [*ledger(("1", "p", "a", {"id": "x"}), ("1", "q", "a")), Row("2", 3, {"op": "revert", "id": "x"})]
    entries = fold(rows, TODAY)
    assert [entry.state for entry in entries] == ["reverted", "active", "revert"]
    rows[2] = Row("2", 3, {"op": "revert", "id": request_id("q", "a")})
    assert [entry.state for entry in fold(rows, TODAY)] == ["active", "reverted", "revert"]


def test_an_id_that_moves_to_another_prompt_is_reverted_where_it_stands_now():
    bearing = {"id": "x"}
    rows = ledger(("1", "p", "a", bearing), ("2", "p", "", REVERT), ("3", "q", "b", bearing))
    entries = fold([*rows, Row("4", 4, {"op": "revert", "id": "x"})], TODAY)
    assert [entry.state for entry in entries] == ["reverted", "revert", "reverted", "revert"]
    assert [entry.id for entry in entries] == ["x"] * 4


def test_a_revert_whose_id_is_that_of_another_prompt_is_bad_input():
    bearing = {"id": "x"}
    rows = ledger(("1", "p", "a", bearing), ("1", "q", "b", bearing), ("1", "r", "c"))
    both = [*rows, Row("2", 4, {**REVERT, "id": "x", "prompt": "q"})]  # two rows bear it, and the prompt tells which
    assert [entry.state for entry in fold(both, TODAY)] == ["active", "reverted", "active", "revert"]
    with pytest.raises(InputError, match="2 row 4: the id 'x' is that of 'p', not of the prompt 'r'"):
        fold([*rows, Row("2", 4, {**REVERT, "id": "x", "prompt": "r"})], TODAY)


def test_an_id_that_a_row_got_in_place_of_its_own_can_be_reverted():
    bearing = {"id": "x"}
    rows = ledger(("1", "p", "a", bearing), ("1", "q", "b", bearing))
    (_, given) = [entry.id for entry in fold(rows, TODAY)]
    entries = fold([*rows, Row("2", 3, {"op": "revert", "id": given})], TODAY)
    assert [entry.state for entry in entries] == ["active", "reverted", "revert"]


@pytest.mark.parametrize(
    ("values", "words"), [({"prompt": "p"}, "the prompt 'p'"), ({"id": "nobody"}, "the id 'nobody'")]
)
def test_a_revert_of_what_nobody_said_is_bad_input(values, words):
    with pytest.raises(InputError, match=f"2 row 7: nothing before it has {words}"):
        fold([*ledger(("1", "q", "a")), Row("2", 7, {**REVERT, **values})], TODAY)


def test_reverting_twice_changes_nothing():
    assert states(("1", "p", "a"), ("2", "p", "", REVERT), ("3", "p", "", REVERT)) == ["reverted 2", "revert", "revert"]


def test_rows_drop_on_the_day_they_expire():
    assert states(("1", "p", "a", {"expires": "2030-06-16"})) == ["active"]
    assert states(("1", "p", "a", {"expires": "2030-06-15"})) == ["expired"]


def test_what_an_expired_row_superseded_stays_superseded():
    assert states(("1", "p", "a"), ("2", "p", "b", {"expires": "2030-01-01"})) == ["superseded 2", "expired"]


def test_an_expired_row_contradicts_nobody():
    assert states(("1", "p", "a", {"expires": "2030-01-01"}), ("1", "p", "b")) == ["expired", "active"]


def test_the_first_of_two_live_rows_keeps_their_id():
    entries = fold(ledger(("1", "p", "a", {"id": "x"}), ("1", "q", "b", {"id": "x"})), TODAY)
    assert [entry.id for entry in entries] == ["x", request_id("q", "b")]


def test_nothing_is_an_empty_set():
    assert states() == []


def calls_of_fold(count: int) -> int:
    """How many Python functions a fold calls over `count` rows: a third superseded, some reverted, one prompt in all
    files."""
    rows = [
        Row(str(at * 20 // count), at, {"prompt": f"p{at % (count // 3)}", "target": f"{at}"}) for at in range(count)
    ]
    rows += [Row("99", at, {"op": "revert", "prompt": f"p{at}"}) for at in range(count // 10)]
    calls = 0

    def count_call(frame, event, argument):
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count_call)
    try:
        fold(rows, TODAY)
    finally:
        sys.setprofile(None)
    return calls


def test_the_work_grows_with_the_rows_and_no_faster():
    small, large = calls_of_fold(3_000), calls_of_fold(12_000)
    assert large < 4.4 * small
    assert large < 30 * 12_000
