import json
import os

import pytest

from factpatch.errors import InputError
from factpatch.files import digest_value, new_folder, output_folder, read_json, write_json, write_lines


def test_an_interrupted_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = write_json(tmp_path / "a.json", {"old": 1})

    def broken():
        yield "half"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_lines(path, broken())
    assert read_json(path) == {"old": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_numbers_that_are_not_finite_are_never_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert os.listdir(tmp_path) == []


def test_a_new_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text((tmp_path / "absent").read_text())
    assert os.listdir(tmp_path) == []
    with new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("a")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "a").read_text() == "a"
    assert (tmp_path / "out" / "a").stat().st_mode & 0o777 == 0o644


def test_a_folder_is_replaced_whole_and_nothing_stays_beside_it(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    renamed = []

    def replace(source, target):
        renamed.append(sorted(os.listdir(tmp_path / "out")) if (tmp_path / "out").exists() else None)
        os.rename(source, target)

    monkeypatch.setattr("factpatch.files.os.replace", replace)
    with new_folder(tmp_path / "out", replace=True) as folder:
        (folder / "new").write_text("new")
    assert renamed == [["old"], None]  # never seen half removed
    assert os.listdir(tmp_path) == ["out"]
    assert os.listdir(tmp_path / "out") == ["new"]


def test_a_folder_that_holds_something_is_not_overwritten(tmp_path):
    (tmp_path / "precious").write_text("x")
    with pytest.raises(InputError, match="not empty"), new_folder(tmp_path):
        pass
    assert (tmp_path / "precious").exists()


def test_an_output_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        output_folder(tmp_path / "file" / "out")


def test_broken_json_is_named(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match=r"a\.json"):
        read_json(tmp_path / "a.json")


def test_digest_ignores_key_order_only():
    assert digest_value({"a": 1, "b": 2}) == digest_value(json.loads('{"b": 2, "a": 1}'))
    assert digest_value([1, 2]) != digest_value([2, 1])
