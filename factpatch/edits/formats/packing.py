"""The bytes of a file, whether it lies there as it is, gzipped, or as the one data file of a zip."""

from __future__ import annotations

import gzip
import io
import lzma
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TextIO, cast

from factpatch.edits.formats.encoding import codec
from factpatch.edits.formats.layout import Layout
from factpatch.edits.formats.values import one_line
from factpatch.errors import InputError

Packing = tuple[str, Layout]  # the ending that tells the format, and a layout that says how it is packed

_DAMAGED = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError)


def find_packing(path: Path, endings: Collection[str]) -> Packing:
    """The ending of the data in a file, in lower case, and how it is packed; the ending may be unknown.

    Raises InputError for a zip that does not hold exactly one file with a known ending, or a locked one.
    """
    ending = path.suffix.lower()
    if ending == ".gz":
        return path.with_suffix("").suffix.lower(), Layout("", compression="gzip")
    if ending != ".zip":
        return ending, Layout("")
    with zipfile.ZipFile(path) as archive:
        found = [entry for entry in archive.infolist() if _is_data(entry.filename, endings)]
    names = ", ".join(f"'{entry.filename}'" for entry in found[:5]) + (" …" if len(found) > 5 else "")
    if not found:
        raise InputError(f"'{path}' holds no file that ends in {', '.join(endings)}; pack one of these")
    if len(found) > 1:
        raise InputError(f"'{path}' holds several files ({names}); unpack it into a folder, and name that")
    if found[0].flag_bits & 1:
        raise InputError(f"'{path}' is locked with a password; unpack it")
    member = found[0].filename
    return PurePosixPath(member).suffix.lower(), Layout("", compression="zip", member=member)


def _is_data(name: str, endings: Collection[str]) -> bool:
    """Whether a zip's entry is data; macOS adds hidden files of its own."""
    path = PurePosixPath(name)
    hidden = path.parts[:1] == ("__MACOSX",) or path.name.startswith(".")
    return not hidden and not name.endswith("/") and path.suffix.lower() in endings


@contextmanager
def open_bytes(path: Path, layout: Layout, seekable: bool = False) -> Iterator[BinaryIO]:
    """The unpacked bytes of a file; if they must be `seekable`, packed ones are unpacked into a temporary file."""
    if layout.compression is None:
        with path.open("rb") as file:
            yield file
    elif seekable:
        with open_bytes(path, layout) as packed, tempfile.TemporaryFile() as unpacked:
            shutil.copyfileobj(packed, unpacked)
            unpacked.seek(0)
            yield cast(BinaryIO, unpacked)
    elif layout.compression == "gzip":
        with gzip.open(path, "rb") as file:
            yield cast(BinaryIO, file)
    else:
        assert layout.member is not None
        with zipfile.ZipFile(path) as archive, archive.open(layout.member) as file:
            yield cast(BinaryIO, file)


@contextmanager
def open_text(path: Path, layout: Layout, newline: str | None = None) -> Iterator[TextIO]:
    """The text of a file in the encoding that its layout names, without a byte order mark."""
    assert layout.encoding is not None
    with (
        open_bytes(path, layout) as file,
        io.TextIOWrapper(file, encoding=codec(layout.encoding), newline=newline) as text,
    ):
        yield text


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what opening, unpacking or decoding complains of into one line that names the file."""
    try:
        yield
    except UnicodeDecodeError as error:  # all of it decoded before
        raise InputError(f"'{path}' changed while it was read ({error.reason}); try again") from error
    except _DAMAGED as error:
        raise InputError(f"'{path}' cannot be unpacked ({one_line(error)}); is it whole?") from error
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({one_line(error.strerror or error)})") from error
