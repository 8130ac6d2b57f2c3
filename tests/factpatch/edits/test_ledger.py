"""Folding files of edits into the active set."""

from __future__ import annotations

from datetime import date

from factpatch.edits.ledger import fold
from factpatch.edits.loading import Row

TODAY = date(2030, 6, 15)


def ledger(*rows):
    """Rows from (file, prompt, target, more fields)."""
    return [
        Row(file, number, {"prompt": prompt, "target": target, **(more[0] if more else {})})
        for number, (file, prompt, target, *more) in enumerate(rows, start=1)
    ]


def active(*rows):
    return [(row.values["prompt"], row.values["target"]) for row in fold(ledger(*rows), TODAY)]


def test_later_files_supersede_for_the_same_prompt():
    assert active(("1", "p", "a"), ("1", "q", "a"), ("2", "p", "b")) == [("q", "a"), ("p", "b")]


def test_rows_of_one_file_stand_side_by_side():
    assert active(("1", "p", "a"), ("1", "q", "a"), ("1", "p", "b")) == [("p", "a"), ("q", "a"), ("p", "b")]


def test_a_later_file_settles_a_contradiction():
    assert active(("1", "p", "a"), ("1", "p", "b"), ("2", "p", "c")) == [("p", "c")]


def test_revert_removes_what_stands_before_it():
    revert = {"op": "revert"}
    assert active(("1", "p", "a"), ("1", "q", "a"), ("2", "p", "", revert)) == [("q", "a")]
    assert active(("1", "p", "a"), ("1", "p", "", revert), ("1", "p", "b")) == [("p", "b")]
    assert active(("1", "p", "", revert)) == []


def test_rows_drop_on_the_day_they_expire():
    assert active(("1", "p", "a", {"expires": "2030-06-16"})) == [("p", "a")]
    assert active(("1", "p", "a", {"expires": "2030-06-15"})) == []


def test_what_an_expired_row_superseded_stays_superseded():
    assert active(("1", "p", "a"), ("2", "p", "b", {"expires": "2030-01-01"})) == []


def test_nothing_is_an_empty_set():
    assert active() == []
