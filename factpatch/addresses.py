"""Addresses and paths as other programs and people read them: of an SQLite file, in a shell, without a password."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from factpatch.errors import InputError

HUB_TIMEOUT = 10.0  # seconds that the Hugging Face hub has to answer
_SQLITE = re.compile(r"sqlite(?:\+\w+)?:///([^?]*)")
_ESCAPED = re.compile(r"[%?#\x00-\x1f\x7f]")  # what would end a path in an address, or begin an escape


def sqlite_address(path: Path, driver: str = "") -> str:
    """The address by which SQLAlchemy, and so MLflow and Prefect, opens exactly this file, whatever its folder is
    called. InputError for a name that no address can hold."""
    text = str(path.resolve())
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"'{ascii(text)[1:-1]}' is not spelled in UTF-8, so no address can name it; rename it"
        ) from error
    written = _ESCAPED.sub(lambda found: quote(found[0]), text)
    if written != text:  # `sqlite:///` alone has MLflow make a folder of the escaped name too
        driver = driver or "pysqlite"
    return f"sqlite{'+' if driver else ''}{driver}:///{written}"


def sqlite_file(uri: str) -> Path | None:
    """The file that SQLAlchemy opens for this address; None for one in memory, and for what is no SQLite."""
    found = _SQLITE.match(uri)
    path = unquote(found[1]) if found else ""
    return None if path in ("", ":memory:") or path.startswith("file:") else Path(path)


def without_password(uri: str) -> str:
    """The address as it may be shown."""
    password = urlsplit(uri).password
    return uri.replace(f":{password}@", ":***@", 1) if password else uri


def shell_path(path: str | Path) -> str:
    """A path as one word of a command that a shell reads, and that no verb takes for an option."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)
