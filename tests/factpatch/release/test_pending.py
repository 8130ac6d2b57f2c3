"""What a release would change: the ledger against the facts and files of a registered version."""

from __future__ import annotations

import pytest

from factpatch.edits.folder import fact, read_ledger
from factpatch.errors import InputError
from factpatch.release.pending import RegisteredVersion, pending_changes, refuse_late_files
from tests.factpatch.edits.ledger_files import two_files, write


@pytest.fixture
def folder(tmp_path):
    return two_files(tmp_path)


def test_pending_is_what_a_version_lacks_and_what_it_should_no_longer_hold(folder):
    entries = read_ledger(str(folder))
    assert [fact(entry) for entry in pending_changes(entries, None).new] == [("p", "a"), ("q", "c")]
    pending = pending_changes(entries, RegisteredVersion("1", frozenset({("p", "a"), ("q", "b")})))
    assert [fact(entry) for entry in pending.new] == [("q", "c")]
    assert pending.withdrawn == (("q", "b"),)
    set_aside = RegisteredVersion("2", frozenset({("p", "a")}), frozenset({("q", "c")}))
    assert not pending_changes(entries, set_aside)
    assert not pending_changes(entries, RegisteredVersion("3", frozenset({("p", "a")})), limit=1)
    both = frozenset({("p", "a"), ("q", "c")})
    copy_set_aside = RegisteredVersion("4", both, frozenset({("q", "c")}))
    assert not pending_changes(entries, copy_set_aside)  # the fact was written


def test_a_file_before_one_that_was_released_is_out_of_order(folder):
    registered = RegisteredVersion("4", frozenset(), files=("0002-second.jsonl",))
    write(folder, "0003-new.jsonl", {"prompt": "s", "target": "t"})
    with pytest.raises(InputError, match=r"'0001-first.jsonl' is out of order: version 4 .*to '0004-first.jsonl'"):
        refuse_late_files(read_ledger(str(folder)), registered)
    refuse_late_files(
        read_ledger(str(folder)), RegisteredVersion("5", frozenset(), files=("0001-first.jsonl", "gone.jsonl"))
    )
    refuse_late_files(read_ledger(str(folder)), None)
