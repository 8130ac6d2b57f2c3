"""What is kept for later runs: damaged files are told and count as none, and old ones make room."""

import logging
import os

import pytest

from factpatch.disk_cache import evict, read_cached_json


def take_answers(value):
    return list(value["answers"])


def test_what_is_absent_is_none_without_a_word(tmp_path, caplog):
    assert read_cached_json(tmp_path / "a.json", take_answers) is None
    assert not caplog.records


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe", b"[1]", b"{}", b'{"answers": 1}', b"null"])
def test_what_is_damaged_or_of_another_form_is_none_with_one_warning(tmp_path, caplog, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert read_cached_json(path, take_answers) is None
    (record,) = caplog.records
    assert f"'{path}' is broken" in record.getMessage()
    path.write_bytes(b'{"answers": [1, 2]}')
    assert read_cached_json(path, take_answers) == [1, 2]


def test_what_was_not_used_for_longest_goes_first_and_what_is_used_stays(tmp_path):
    for age, name in enumerate(("used", "oldest", "older", "new")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "file").write_bytes(bytes(100))
        os.utime(folder, (1000 + age, 1000 + age))
    evict(tmp_path.iterdir(), tmp_path / "used", 250)
    assert {path.name for path in tmp_path.iterdir()} == {"used", "new"}
