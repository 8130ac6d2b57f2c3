"""Where a release is recorded: the registry's address, whether it answers, and the lock of one release at a time."""

from __future__ import annotations

import os
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from filelock import FileLock, Timeout

from factpatch.addresses import sqlite_address, sqlite_file, without_password
from factpatch.disk_cache import read_cached_json
from factpatch.errors import FactpatchError, InputError, RefusedError, UnavailableError
from factpatch.files import write_json
from factpatch.settings.config import RegistrySettings

CONNECT_TIMEOUT = 5.0  # of a server, before it counts as out of reach
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


def tracking_uri(settings: RegistrySettings) -> str:
    """The settings' address, else MLFLOW_TRACKING_URI, else SQLite in `mlruns/` of the current folder."""
    return settings.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or sqlite_address(Path("mlruns/mlflow.db"))


@contextmanager
def reaching(uri: str, *errors: type[Exception]) -> Iterator[None]:
    """Tell the store's failures in one line: UnavailableError at once if it is out of reach, InputError for a value
    that it does not take, FactpatchError for the rest. `errors` are those that its client raises."""
    shown = without_password(uri)
    try:
        _probe(uri)
    except (OSError, ValueError) as error:  # the latter for a port that is none
        reason = getattr(error, "strerror", None) or error
        told = f"MLflow at '{shown}' cannot be reached ({reason}); start it, or correct the address"
        raise UnavailableError(told) from error
    kinds: tuple[type[Exception], ...] = (*errors, OSError)
    try:
        yield
    except kinds as error:
        reason = " ".join(str(error).split())[:300]
        kind = InputError if getattr(error, "error_code", "") == "INVALID_PARAMETER_VALUE" else FactpatchError
        raise kind(f"MLflow at '{shown}': {reason}") from error


def _probe(uri: str) -> None:
    """OSError if nothing answers there. Clients find that out too, but only after minutes of repeating."""
    if path := sqlite_file(uri):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            with path.open("rb") as file:
                if file.read(16) not in (b"", b"SQLite format 3\0"):
                    raise OSError("the file is no SQLite database")
        return
    parts = urlsplit(uri)
    host, scheme = parts.hostname, parts.scheme.partition("+")[0]
    port = parts.port or PORTS.get(scheme)
    if host is None or port is None:
        return
    if scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return
    with socket.create_connection((host, port), timeout=CONNECT_TIMEOUT):
        pass


# One at a time


def lock_file(settings: RegistrySettings, what: str) -> Path:
    """The file whose lock means that a `what` (such as release) of this model runs."""
    return own_file(settings, "locks", f"{what}.lock")


def own_file(settings: RegistrySettings, folder: str, ending: str) -> Path:
    """A file about this model on this machine: `FOLDER/MODEL.ENDING` beside a local store, else in `mlruns/`."""
    file = sqlite_file(tracking_uri(settings))
    root = file.parent if file else Path("mlruns")
    return root.resolve() / folder / f"{quote(settings.name, safe=' ')}.{ending}"


@contextmanager
def locked(path: Path, doing: str, patience: float = 0.0) -> Iterator[None]:
    """Hold a lock while the block runs; the system frees it when the process ends, however it ends.

    `doing` is told to whoever comes meanwhile, by a note beside the lock. Raises RefusedError, naming the holder, if
    the lock is not free within `patience` seconds, and InputError if its file cannot be written.
    """
    lock, note = FileLock(path, timeout=patience), path.with_suffix(".json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise RefusedError(f"{_holder(note)}; wait for it to end, or stop it, and try again") from error
    except OSError as error:
        raise InputError(f"lock '{path}' cannot be written ({error.strerror}); check the folder's rights") from error
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        about = {"doing": doing, "process": os.getpid(), "host": socket.gethostname(), "since": since}
        write_json(note, about)
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def _holder(note: Path) -> str:
    return read_cached_json(note, _in_words) or "another process holds the lock"


def _in_words(held: Any) -> str:
    return f"{held['doing']} since {held['since']} (process {held['process']} on {held['host']})"
