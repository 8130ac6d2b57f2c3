"""Files on disk: atomic writes and digests."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from factpatch.errors import InputError

try:
    import fcntl
except ImportError:  # Windows, which neither opens nor locks a folder
    fcntl = None  # type: ignore[assignment]

GIB = 2**30  # bytes
PARTIAL = ".partial"  # ends the names of what is being written


def output_folder(path: str | Path) -> Path:
    """The folder, made if absent. Raises InputError if nothing can be written there."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"output folder '{path}' cannot be written ({error.strerror}); choose another --output"
        ) from error
    return folder


def write_text(path: Path, text: str) -> Path:
    """Write `text` so that `path` holds either its old content or all of the new one."""
    return write_lines(path, [text])


def write_json(path: Path, value: Any) -> Path:
    """Write `value` as indented JSON, atomically."""
    return write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    """Write one JSON object a line, atomically and without holding all rows in memory."""
    return write_lines(path, (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def write_lines(path: Path, chunks: Iterable[str]) -> Path:
    """Write the chunks one after the other to a temporary file, then rename it to `path`."""
    with new_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(chunks)
    return path


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well, and vanishes if not."""
    with _workshop(path) as folder:
        temporary = folder / path.name
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    sync_folder(path.parent)


@contextmanager
def new_folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place when the block ends well, and vanishes if not.

    Raises InputError if `path` cannot be made, or holds something already and `replace` is false.
    """
    if not replace and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"output folder '{path}' is not empty; name a new one")
    path = path.resolve()
    output_folder(path.parent)
    with _workshop(path) as temporary:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file() and file.stat().st_nlink == 1:  # another name's file was written before
                file.chmod(0o644)  # some libraries make their files readable to the owner alone
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        temporary.chmod(0o755)
        with _workshop(path) as aside:
            if path.exists():
                os.replace(path, aside / path.name)
            os.replace(temporary, path)
    sync_folder(path.parent)


@contextmanager
def _workshop(path: Path) -> Iterator[Path]:
    """A folder beside `path` to make it in, locked for as long; those of killed runs are removed first."""
    remove_litter(path.parent, path.name)
    while True:
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL))
        try:
            lock = _lock_folder(temporary)
        except FileNotFoundError:  # taken for litter at once
            continue
        if temporary.exists():  # else another process took it for litter before the lock was there
            break
        lock.close()
    with lock:
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _lock_folder(folder: Path) -> ExitStack:
    """Lock a folder until what is given is closed. Where that cannot be done, litter stays and nothing else suffers."""
    lock = ExitStack()
    if fcntl is not None:
        descriptor = os.open(folder, os.O_RDONLY)
        lock.callback(os.close, descriptor)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    return lock


def remove_litter(folder: Path, name: str = "") -> None:
    """Remove what killed runs left of half-written files (those called `name`, or all) in a folder; what another
    process is writing now is locked, and stays."""
    if fcntl is None:
        return
    pattern = f".{glob.escape(name)}.????????{PARTIAL}" if name else f".*.????????{PARTIAL}"
    for litter in folder.glob(pattern):
        with suppress(OSError):
            descriptor = os.open(litter, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(litter, ignore_errors=True)
            finally:
                os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a crash, where the system lets one open a folder."""
    if fcntl is None:
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Path) -> Any:
    """The JSON value in `path`. Raises InputError if it is absent or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"'{path}' is not JSON ({error})") from error


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_value(value: Any) -> str:
    """SHA-256 of a JSON value in its canonical form (sorted keys, no blanks)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
