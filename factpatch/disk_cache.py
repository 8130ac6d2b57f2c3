"""What runs keep on disk for later ones: a damaged file counts as absent, and old ones make room for new ones.

Files are written whole (`factpatch.files`), so damage comes from outside: a disk, an editor, another version.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError

from factpatch.errors import InputError
from factpatch.files import read_json

DAMAGE = (OSError, SafetensorError, InputError, ValueError, KeyError, TypeError)  # what reading a damaged file raises

log = logging.getLogger(__name__)
Value = TypeVar("Value")


def read_cached(path: Path, read: Callable[[Path], Value]) -> Value | None:
    """What `read` makes of a kept file, or None where there is none. `read` raises if the file does not hold what it
    should: that is told in a warning, and the value is None too, so that it is made anew."""
    if not path.exists():
        return None
    try:
        return read(path)
    except DAMAGE as error:
        log.warning("'%s' is broken (%r); it is made anew", path, error)
        return None


def read_cached_json(path: Path, parse: Callable[[Any], Value]) -> Value | None:
    """The same of a JSON file, with what `parse` makes of its value."""
    return read_cached(path, lambda path: parse(read_json(path)))


def evict(entries: Iterable[Path], used: Path, limit: float) -> None:
    """Remove those files or folders that were not used for longest, until the rest takes no more than `limit` bytes;
    `used` stays. Other runs may add and remove some meanwhile."""
    sizes, times = {}, {}
    for entry in entries:
        with suppress(OSError):
            times[entry] = entry.stat().st_mtime
            sizes[entry] = _size(entry)
    total = sum(sizes.values())
    for entry in sorted(sizes, key=lambda entry: times[entry]):
        if total <= limit:
            break
        if entry != used:
            total -= sizes[entry]
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def _size(entry: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    total = 0
    for file in entry.rglob("*") if entry.is_dir() else [entry]:
        with suppress(OSError):
            total += file.stat().st_size
    return total
