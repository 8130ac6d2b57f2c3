"""Lineage: DVC takes the bytes of what a run accepted and made, and `lineage.json` records their digests.

A run inside a DVC repository is added to it: `patch.dvc` and `accepted.jsonl.dvc` appear beside the data, for the user
to commit. Anywhere else, and where git ignores the folder, the run gets a small DVC repository of its own.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException, NotDvcRepoError, UploadError
from dvc.lock import LockError
from dvc.repo import Repo
from dvc.scm import SCM, SCMError
from dvc.stage import Stage
from prefect import task

from factpatch.edits.origin import git, path_in_repository, place_of
from factpatch.errors import FactpatchError, InputError
from factpatch.files import output_folder, read_json, write_json
from factpatch.settings.config import Settings

SCHEMA = 1
TRACKED = ("accepted.jsonl", "patch")


def _worth_repeating(task: Any, run: Any, state: Any) -> bool:
    """Another DVC command holds the lock only for a while, and a remote comes back; bad input stays bad."""
    return not isinstance(state.result(raise_on_failure=False), InputError)


@task(
    name="lineage",
    retries=3,
    retry_delay_seconds=[2, 10, 30],
    retry_condition_fn=_worth_repeating,
    timeout_seconds=3600,
    persist_result=False,
)
def lineage(output: str, settings: Settings, ledger_source: Mapping[str, Any] | None = None) -> str:
    """Give the run's edits and patch in `output` to DVC and push them if a remote is set; path of lineage.json.

    `ledger_source` says which state of the ledger the edits came from; it is looked up if not given.

    The files themselves stay as they are: writable, and never links into DVC's cache. Raises FactpatchError if DVC's
    lock or its remote cannot be had, InputError for what repeating cannot mend.
    """
    started = time.monotonic()
    folder = output_folder(output).resolve()
    manifest = read_json(folder / "patch" / "manifest.json")
    logging.getLogger("dvc").setLevel(logging.CRITICAL)  # this alone silences its progress bars
    try:
        with _enclosing(folder) or Repo.init(str(folder), no_scm=True) as repo:
            stages = repo.add([str(folder / name) for name in TRACKED], relink=False)
            pushed = _push(repo, stages)
            files = {Path(stage.outs[0].fs_path).name: _digest(stage) for stage in stages}
            root = os.path.relpath(repo.root_dir, folder)
    except ImportError as error:  # of the package that reaches the remote
        raise InputError(f"DVC cannot push '{output}': {_line(error)}") from error
    except (LockError, UploadError) as error:
        raise FactpatchError(f"DVC could not take '{output}': {_line(error)}") from error
    except DvcException as error:
        raise InputError(f"DVC refuses '{output}': {_line(error)}; choose another --output") from error
    record = {
        "schema": SCHEMA,
        "seconds": round(time.monotonic() - started, 3),
        "repository": root,
        "files": files,
        "pushed": pushed,
        "base_fingerprint": manifest["base"]["fingerprint"],
        "edits": dict(ledger_source or find_ledger_source(settings.edits.path)),
    }
    return str(write_json(folder / "lineage.json", record))


def check_remote(output: Path) -> str | None:
    """The default remote of the repository that a run into `output` would be added to; None without one. InputError if
    DVC lacks the package that reaches it, or cannot read its settings."""
    folder = next(place for place in (output, *output.parents) if place.is_dir())
    try:
        repo = _enclosing(folder)
        if repo is None:
            return None
        with repo:
            remote: str | None = repo.config["core"].get("remote")
            if remote:
                repo.cloud.get_remote_odb(remote)
            return remote
    except (DvcException, ImportError) as error:
        raise InputError(f"DVC cannot use the remote of '{folder}': {_line(error)}") from error


def _enclosing(folder: Path) -> Repo | None:
    """The DVC repository around `folder`; None without one, and where git or DVC ignore the folder."""
    try:
        repo = _open(folder)
    except NotDvcRepoError:
        return None
    pointer = str(folder / f"{TRACKED[0]}.dvc")
    if repo.scm.is_ignored(pointer) or repo.dvcignore.is_ignored_file(pointer):
        repo.close()
        return None
    return repo


def _open(folder: Path) -> Repo:
    """The DVC repository around `folder`, whether git holds it or not (yet): DVC opens the latter only if told to."""
    root = Repo.find_root(str(folder))
    try:
        SCM(root).close()
    except SCMError:
        return Repo(root, config={"core": {"no_scm": True}})
    return Repo(root)


def _push(repo: Repo, stages: list[Stage]) -> bool:
    """Copy the added data to the default remote; False if none is configured."""
    if not repo.config["core"].get("remote"):
        return False
    repo.push(targets=[stage.path for stage in stages])
    return True


def _digest(stage: Stage) -> dict[str, Any]:
    """What DVC knows of an added file or folder: MD5, size in bytes and, for a folder, the number of files."""
    out = stage.outs[0]
    digest = {"md5": out.hash_info.value, "size": out.meta.size}
    return {**digest, "nfiles": out.meta.nfiles} if out.meta.isdir else digest


def find_ledger_source(source: str) -> dict[str, Any]:
    """Which state of the ledger its rows are: its place, its path in a git repository, the last revision that changed
    it, and whether it was changed since.

    The last three are None outside git. For a ledger kept by DVC it is the revision of its `.dvc` file. Raises
    FactpatchError while another DVC command holds the lock, InputError if DVC cannot tell.
    """
    path = Path(source).absolute()
    pointer = path.with_name(f"{path.name}.dvc")
    kept_by_dvc = pointer.exists()
    name = pointer.name if kept_by_dvc else path.name
    revision = git(path.parent, "log", "-1", "--format=%H", "--", name)
    changes = git(path.parent, "status", "--porcelain", "--", name)
    if not changes and kept_by_dvc:
        try:
            with _open(path.parent) as repo:
                changes = str(repo.status([str(pointer)]) or "")
        except DvcException as error:
            kind = FactpatchError if isinstance(error, LockError) else InputError
            raise kind(f"DVC cannot tell the state of '{source}': {_line(error)}") from error
    dirty = None if changes is None else bool(changes)
    place = {"path": source, "place": place_of(source), "inside": path_in_repository(path)}
    return {**place, "revision": revision or None, "dirty": dirty}


def _line(error: Exception) -> str:
    """The first line of DVC's message: the rest is links."""
    return str(error).splitlines()[0].rstrip(".")
