"""The ledger as a folder: order of files, and withdrawing a fact by a new file."""

from __future__ import annotations

import json

import pytest

from factpatch.edits.folder import fact, next_name, read_ledger, write_revert
from factpatch.errors import InputError
from tests.factpatch.edits.ledger_files import two_files, write


@pytest.fixture
def folder(tmp_path):
    return two_files(tmp_path)


def active(folder):
    return [fact(entry) for entry in read_ledger(str(folder)) if entry.state == "active"]


def test_a_revert_is_a_new_file_that_comes_last(folder):
    path = write_revert(str(folder), "two", "ben", "it was wrong")
    assert path == folder / "0003-revert-two.jsonl"
    assert json.loads(path.read_text()) == {
        "id": "two", "op": "revert", "prompt": "q", "target": "c", "owner": "ben", "source": "it was wrong"
    }  # fmt: skip
    assert active(folder) == [("p", "a")]  # q is not back at b: what was superseded stays so
    assert [entry.state for entry in read_ledger(str(folder))] == ["active", "superseded", "reverted", "revert"]


def test_two_spellings_of_one_text_are_one_fact(folder):
    write(folder, "0003-marked.jsonl", {"prompt": "M\u00fcnster is\u00a0in", "target": "Italy", "id": "\u00e9"})
    assert active(folder)[-1] == ("M\u00fcnster is in", "Italy")
    write(folder, "0004-revert.jsonl", {"prompt": "Mu\u0308nster is in", "op": "revert"})
    assert [entry.state for entry in read_ledger(str(folder))][-2:] == ["reverted", "revert"]
    write(folder, "0005-again.jsonl", {"prompt": "Mu\u0308nster is\u200b in", "target": "Peru", "id": "e\u0301"})
    assert write_revert(str(folder), "e\u0301", None, None).is_file()
    assert active(folder) == [("p", "a"), ("q", "c")]


def test_reverting_what_is_not_there_writes_nothing(folder):
    write_revert(str(folder), "one", None, None)
    before = sorted(folder.iterdir())
    with pytest.raises(InputError, match="no edit has the id 'three'"):
        write_revert(str(folder), "three", None, None)
    with pytest.raises(InputError, match=r"'one' is not active: reverted by .*0003-revert-one.jsonl row 1"):
        write_revert(str(folder), "one", None, None)
    with pytest.raises(InputError, match="no folder"):
        write_revert(str(before[0]), "two", None, None)
    assert sorted(folder.iterdir()) == before


def test_an_id_may_hold_anything(folder):
    write(folder, "0003-odd.jsonl", {"prompt": "s", "target": "t", "id": "../../ä b"})
    assert write_revert(str(folder), "../../ä b", None, None).name == "0004-revert-..-..-b.jsonl"


@pytest.mark.parametrize(
    ("names", "expected"),
    [([], "0001-x.jsonl"), (["0001-a.csv", "0009-b.jsonl"], "0010-x.jsonl"), (["01-a.jsonl"], "02-x.jsonl")],
)
def test_the_next_name_follows_all_others(names, expected):
    assert next_name(names, "x") == expected


@pytest.mark.parametrize("names", [["9-a.jsonl"], ["0001-a.jsonl", "late.jsonl"]])
def test_a_next_name_that_would_not_come_last_is_refused(names):
    with pytest.raises(InputError, match="would come before"):
        next_name(names, "x")


def test_numbers_that_disagree_with_file_name_order_are_bad_input(folder):
    write(folder, "10-tenth.jsonl", {"prompt": "s", "target": "t"})
    write(folder, "9-ninth.jsonl", {"prompt": "s", "target": "u"})
    with pytest.raises(InputError, match=r"9-ninth.jsonl' is out of order.* such as 09"):
        read_ledger(str(folder))
