"""Which ledgers are the same one: by place, and by commits."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from factpatch.edits.origin import Origin, continues, git, path_in_repository, place_of

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="no git")


def commit(folder: Path) -> str:
    """Commit everything in a folder; the revision."""
    who = ("-c", "user.name=ann", "-c", "user.email=ann@example.org")
    for arguments in (["add", "--all"], [*who, "commit", "--quiet", "--message", "rows"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    return git(folder, "rev-parse", "HEAD") or ""


@pytest.fixture
def project(tmp_path) -> Path:
    """A repository with a ledger."""
    folder = tmp_path / "one"
    (folder / "data" / "edits").mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    (folder / "data" / "edits" / "0001.jsonl").write_text("{}")
    return folder


def test_a_place_is_the_same_however_it_is_written(project, tmp_path, monkeypatch):
    then = Origin(place_of(str(project / "data" / "edits")))
    monkeypatch.chdir(project)
    assert continues("data/edits", then)
    assert continues("../one/data/edits/", then)
    assert not continues("data/edits/0001.jsonl", then)
    assert place_of("someone/dataset") == "someone/dataset"


def test_a_checkout_with_the_commit_is_the_same_ledger_at_the_same_path_alone(project, tmp_path):
    revision = commit(project)
    clone = tmp_path / "two"
    subprocess.run(["git", "clone", "--quiet", str(project), str(clone)], check=True)
    ledger = str(clone / "data" / "edits")
    path = path_in_repository(clone / "data" / "edits")
    then = Origin("elsewhere:/x/data/edits", path, revision)
    assert path == "data/edits"
    assert continues(ledger, then)
    (clone / "data" / "edits" / "0002.jsonl").write_text("{}")
    commit(clone)
    assert continues(ledger, then)  # it went on from there
    assert not continues(str(clone / "data" / "edits" / "0002.jsonl"), then)
    assert not continues(ledger, Origin(then.place, path, None))  # rows that were not committed
    later = Origin(then.place, path, commit_more(project))
    assert not continues(ledger, later)  # the two went different ways
    subprocess.run(["git", "fetch", "--quiet"], cwd=clone, check=True)
    assert not continues(ledger, later)  # also where the commit is known but not part of this one


def commit_more(project: Path) -> str:
    (project / "data" / "edits" / "0002.jsonl").write_text("other")
    return commit(project)


def test_outside_git_only_the_place_counts(tmp_path):
    (tmp_path / "edits.jsonl").write_text("{}")
    assert path_in_repository(tmp_path / "edits.jsonl") is None
    assert not continues(str(tmp_path / "edits.jsonl"), Origin("host:/else", "edits.jsonl", "0" * 40))
