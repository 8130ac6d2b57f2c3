"""Lineage against real DVC repositories."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest
from dvc.repo import Repo
from dvc.repo.add import add as dvc_add

from factpatch.errors import FactpatchError, InputError
from factpatch.settings.config import EditsSettings, Settings
from tasks.lineage import check_remote, lineage


@pytest.fixture(autouse=True)
def dvc_folders(tmp_path_factory, monkeypatch):
    """DVC's state and its user's settings in temporary folders."""
    base = tmp_path_factory.mktemp("dvc")
    for name in ("DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"):
        monkeypatch.setenv(name, str(base / name.lower()))


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def make_run(folder: Path, value: str = "new") -> Path:
    """The files of a run that lineage reads."""
    (folder / "patch").mkdir(parents=True, exist_ok=True)
    (folder / "accepted.jsonl").write_text('{"id": "1", "prompt": "p", "target": "t"}\n')
    (folder / "patch" / "patch.safetensors").write_text(value)
    (folder / "patch" / "manifest.json").write_text(json.dumps({"base": {"fingerprint": "f" * 64}}))
    return folder


@pytest.fixture
def project(tmp_path) -> Path:
    """A git and DVC repository with a committed ledger."""
    root = tmp_path / "a project"
    (root / "data" / "edits").mkdir(parents=True)
    (root / "data" / "edits" / "0001.jsonl").write_text('{"prompt": "p", "target": "t"}\n')
    (root / ".gitignore").write_text("/runs/\n")
    git(tmp_path, "init", "-q", str(root))
    Repo.init(str(root)).close()
    git(root, "add", "-A")
    git(root, "commit", "-qm", "ledger")
    return root


def record_of(output: Path, edits: Path) -> dict:
    settings = Settings(edits=EditsSettings(path=str(edits)))
    return json.loads(Path(lineage.fn(str(output), settings)).read_text())


def test_run_outside_any_repository_gets_its_own(tmp_path):
    output = make_run(tmp_path / "run")
    record = record_of(output, tmp_path / "absent.jsonl")
    assert record["schema"] == 1
    assert record["repository"] == "."
    assert record["base_fingerprint"] == "f" * 64
    accepted = (output / "accepted.jsonl").read_bytes()
    assert record["files"]["accepted.jsonl"] == {"md5": hashlib.md5(accepted).hexdigest(), "size": len(accepted)}
    patch = record["files"]["patch"]
    size = sum(file.stat().st_size for file in (output / "patch").iterdir())
    assert (patch["md5"].endswith(".dir"), patch["size"], patch["nfiles"]) == (True, size, 2)
    assert record["pushed"] is False
    nowhere = str(tmp_path / "absent.jsonl")
    assert record["edits"] == {"path": nowhere, "place": nowhere, "inside": None, "revision": None, "dirty": None}


def test_a_new_project_runs_before_and_after_git_holds_it(tmp_path):
    project = tmp_path / "new"
    (project / ".dvc").mkdir(parents=True)
    (project / ".dvc" / "config").write_text(
        f"[core]\n    remote = away\n['remote \"away\"']\n    url = {tmp_path / 'away'}\n"
    )
    (project / "data" / "edits").mkdir(parents=True)
    (project / "data" / "edits" / "0001.jsonl").write_text('{"prompt": "p", "target": "t"}\n')
    output, edits = make_run(project / "runs" / "latest"), project / "data" / "edits"
    assert check_remote(output) == "away"
    record = record_of(output, edits)
    assert (record["repository"], record["pushed"], record["edits"]["revision"]) == ("../..", True, None)
    (project / ".gitignore").write_text("/runs/\n")
    git(tmp_path, "init", "-q", str(project))
    git(project, "add", "-A")
    git(project, "commit", "-qm", "ledger")
    assert check_remote(output) is None
    record = record_of(output, edits)
    assert (record["repository"], record["edits"]["dirty"]) == (".", False)


def test_files_stay_writable_and_a_second_run_keeps_both_versions(tmp_path):
    output = make_run(tmp_path / "run")
    first = record_of(output, tmp_path)
    weights = output / "patch" / "patch.safetensors"
    assert weights.stat().st_nlink == 1
    assert not weights.is_symlink()
    assert os.access(weights, os.W_OK)
    make_run(output, "newer")
    second = record_of(output, tmp_path)
    assert second["files"]["accepted.jsonl"] == first["files"]["accepted.jsonl"]
    assert second["files"]["patch"]["md5"] != first["files"]["patch"]["md5"]
    assert weights.read_text() == "newer"
    pointer = (output / "patch.dvc").read_text()
    (output / "patch.dvc").write_text(pointer.replace(second["files"]["patch"]["md5"], first["files"]["patch"]["md5"]))
    with Repo(str(output)) as repo:
        repo.checkout(force=True)
    assert weights.read_text() == "new"


def test_run_in_a_repository_is_added_there(project):
    output = make_run(project / "releases" / "one")
    record = record_of(output, project / "data" / "edits")
    assert record["repository"] == "../.."
    assert not (output / ".dvc").exists()
    assert (output / ".gitignore").read_text().split() == ["/accepted.jsonl", "/patch"]
    git(project, "add", "-A")
    staged = git(project, "diff", "--cached", "--name-only").split()
    assert {"releases/one/patch.dvc", "releases/one/accepted.jsonl.dvc"} <= set(staged)
    assert not any("patch/" in name for name in staged)
    assert record_of(output, project / "data" / "edits")["files"] == record["files"]


@pytest.mark.parametrize("ignored_by", [".gitignore", ".dvcignore"])
def test_ignored_run_gets_its_own_repository(project, ignored_by):
    (project / ".gitignore").unlink()
    (project / ignored_by).write_text("/runs/\n")
    output = make_run(project / "runs" / "one")
    assert record_of(output, project / "data" / "edits")["repository"] == "."
    assert (output / ".dvc").is_dir()
    assert record_of(output, project / "data" / "edits")["repository"] == "."


def state_of(output, edits) -> tuple:
    """Revision and changes as the record tells them, which also says where the ledger lies."""
    told = record_of(output, edits)["edits"]
    assert told["path"] == str(edits)
    assert told["place"].endswith(f":{edits.resolve()}")
    assert edits.match(told["inside"])
    return told["revision"], told["dirty"]


def test_ledger_revision_and_changes(project):
    output, edits = make_run(project / "runs" / "one"), project / "data" / "edits"
    head = git(project, "rev-parse", "HEAD")
    (project / "elsewhere.txt").write_text("not the ledger's business")
    assert state_of(output, edits) == (head, False)
    (edits / "0002.jsonl").write_text("{}\n")
    assert state_of(output, edits) == (head, True)


def test_ledger_kept_by_dvc(project):
    output, edits = make_run(project / "runs" / "one"), project / "big.jsonl"
    edits.write_text("{}\n")
    with Repo(str(project)) as repo:
        dvc_add(repo, str(edits))
    git(project, "add", "-A")
    git(project, "commit", "-qm", "big ledger")
    head = git(project, "rev-parse", "HEAD")
    assert state_of(output, edits) == (head, False)
    edits.write_text("{}\n{}\n")
    assert record_of(output, edits)["edits"]["dirty"] is True


def test_remote_receives_the_bytes(project, tmp_path):
    with Repo(str(project)) as repo, repo.config.edit() as config:
        config["remote"]["store"] = {"url": str(tmp_path / "store")}
        config["core"]["remote"] = "store"
    output = make_run(project / "releases" / "one")
    record = record_of(output, project / "data" / "edits")
    assert record["pushed"] is True
    md5 = record["files"]["accepted.jsonl"]["md5"]
    assert (tmp_path / "store" / "files" / "md5" / md5[:2] / md5[2:]).read_bytes() == (
        output / "accepted.jsonl"
    ).read_bytes()


def test_locked_repository_can_be_repeated(project):
    output = make_run(project / "releases" / "one")
    with Repo(str(project)) as repo, repo.lock, pytest.raises(FactpatchError, match="lock") as caught:
        record_of(output, project / "data" / "edits")
    assert not isinstance(caught.value, InputError)
    assert record_of(output, project / "data" / "edits")["schema"] == 1


def test_output_of_a_pipeline_stage_is_refused(project):
    output = make_run(project / "build")
    (project / "dvc.yaml").write_text("stages: {edit: {cmd: 'true', outs: [build/patch]}}\n")
    with pytest.raises(InputError, match=r"cannot update 'patch'.*choose another --output"):
        record_of(output, project / "data" / "edits")


def test_run_without_a_patch_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"manifest\.json"):
        record_of(tmp_path / "empty", tmp_path)
