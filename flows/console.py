"""What people see of errors: one line each and an exit code, with Prefect's log lines down to warnings and worse."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import tomllib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from factpatch.errors import FactpatchError, InputError, UnavailableError
from factpatch.files import PARTIAL

PREFECT_TIMEOUT = 10.0  # of Prefect's server, before it counts as out of reach


def exit_code(work: Callable[[], int]) -> int:
    """What the work returns, or the code of what went wrong, told in one line: 0 done, 1 a gate or check refused, 2 bad
    input or usage, 130 stopped by Ctrl-C or SIGTERM."""
    try:
        with _stoppable():
            return work()
    except FactpatchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("FACTPATCH_TRACEBACK"):
            raise
        if isinstance(error, ModuleNotFoundError):
            print(f"error: {error.name} is not installed; run: pip install 'factpatch[release]'", file=sys.stderr)
            return InputError.exit_code
        if isinstance(error, OSError) and isinstance(error.filename, str) and error.strerror:
            place = os.path.dirname(error.filename) if error.filename.endswith(PARTIAL) else error.filename
            print(f"error: '{place}' cannot be used ({error.strerror}); check its rights and room", file=sys.stderr)
            return InputError.exit_code
        reason = " ".join(str(error).split()) or "no message"
        print(f"error: {type(error).__name__}: {reason} (FACTPATCH_TRACEBACK=1 shows where)", file=sys.stderr)
        return 1


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM, as from a supervisor, ends the block as Ctrl-C does, so that what it started is stopped too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


def check_prefect() -> Path | None:
    """Find out where flows will run, before any is started: None for a server that answers, else the folder in which
    Prefect keeps a temporary one's database.

    An address from Prefect's profile or files is put into PREFECT_API_URL, so that all see the same. Raises
    UnavailableError for a server that does not answer, InputError where there is none and none may be started.
    """
    import httpx

    try:
        httpx.Client().close()
    except (ImportError, ValueError, httpx.InvalidURL) as error:  # ALL_PROXY=socks5://… without socksio
        reason = " ".join(str(error).split())
        raise InputError(f"the proxy of HTTP_PROXY, HTTPS_PROXY or ALL_PROXY cannot be used ({reason})") from error
    api, cure = os.environ.get("PREFECT_API_URL"), "correct or unset PREFECT_API_URL"
    if not api:
        quiet_prefect()
        try:
            with warnings.catch_warnings(action="ignore"):  # about a home that cannot be made, which the caller tells
                from prefect.settings import Settings
            settings = Settings()
            profile = os.environ.get("PREFECT_PROFILE") or _active_profile(settings.profiles_path)
        except Exception as error:  # whatever its files hold
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                f"Prefect's settings cannot be read ({reason}); 'prefect config view' shows them"
            ) from error
        api, cure = settings.api.url, f"choose another profile of Prefect's than '{profile}', or set PREFECT_API_URL"
        if not api and not settings.server.ephemeral.enabled:
            told = f"Prefect's profile '{profile}' names no server, and a temporary one is switched off"
            more = "set PREFECT_API_URL to a server, or PREFECT_SERVER_ALLOW_EPHEMERAL_MODE to true"
            raise InputError(f"{told}; {more}")
        if not api:
            return settings.home
    try:
        httpx.get(f"{api.rstrip('/')}/health", timeout=PREFECT_TIMEOUT)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnavailableError(f"Prefect at '{api}' cannot be reached ({reason}); start it, or {cure}") from error
    os.environ["PREFECT_API_URL"] = api
    return None


def _active_profile(path: Path | None) -> str:
    """The name of the profile that Prefect's file of profiles says is in use."""
    named = tomllib.loads(path.read_text(encoding="utf-8")) if path and path.exists() else {}
    return str(named.get("active", "ephemeral"))


def printable(text: str) -> str:
    """The text in one line that no terminal takes for a command: as it is, or quoted where it holds such characters."""
    return text if text.isprintable() else quoted(text)


def quoted(text: str) -> str:
    """The text in quotes and in one line, whatever it holds."""
    written = json.dumps(text, ensure_ascii=False)
    return "".join(character if character.isprintable() else json.dumps(character)[1:-1] for character in written)


def quiet_prefect() -> None:
    """To be called before Prefect is imported, which is when it reads its level."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    """Drop records about errors that the command line tells in its own line."""
    error = record.exc_info[1] if record.exc_info else None
    kinds: tuple[type, ...] = (FactpatchError, *FactpatchError.__subclasses__())
    told = record.getMessage()
    ended = "Finished in state Failed" in told and any(f" {kind.__name__}: " in told for kind in kinds)
    stopped = "aborted by a termination signal" in told  # which "stopped" says in its own line
    return not (ended or stopped or isinstance(error, FactpatchError))
