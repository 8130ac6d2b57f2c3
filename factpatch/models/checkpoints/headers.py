"""The header of a safetensors file: which tensors it holds, of what type and shape, and where their bytes lie.

The form is https://github.com/huggingface/safetensors#format: eight bytes of length, so much JSON, then the bytes of
all tensors without gaps. A header that the file does not bear out is refused, so a file is judged without reading it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factpatch.errors import InputError

LENGTH_BYTES = 8  # bytes that say how long the header is
LONGEST_HEADER = 100_000_000  # bytes of a header; the library takes no longer one
POINTER = b"version https://git-lfs"
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "I16": 16, "U16": 16, "I32": 32, "U32": 32, "I64": 64, "U64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
}  # fmt: skip


@dataclass(frozen=True)
class TensorEntry:
    """A tensor in a file: its type as safetensors names it (`BF16`), its shape, and the range of its bytes."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path) -> dict[str, TensorEntry]:
    """The tensors of a file by name; InputError if it is anything but a whole safetensors file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            first = file.read(len(POINTER))
            _check_start(path, first, size)
            file.seek(LENGTH_BYTES)
            length = int.from_bytes(first[:LENGTH_BYTES], "little")
            header = _parse(path, file.read(length))
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror or error})") from error
    entries = {name: _entry(path, name, value, LENGTH_BYTES + length) for name, value in header.items()}
    _check_extent(path, entries.values(), LENGTH_BYTES + length, size)
    return entries


def is_pointer(path: Path) -> bool:
    """Whether Git left a pointer in place of a large file."""
    with path.open("rb") as file:
        return file.read(len(POINTER)) == POINTER


def pointer_error(path: Path) -> InputError:
    """What is said of such a file."""
    return InputError(f"'{path}' is a Git LFS pointer, not the file itself; run `git lfs pull` in its folder")


def _check_start(path: Path, first: bytes, size: int) -> None:
    """InputError if a file of this size cannot begin like that."""
    if not size:
        raise InputError(f"'{path}' is empty; download it again")
    if first == POINTER:
        raise pointer_error(path)
    if size < LENGTH_BYTES:
        raise InputError(f"'{path}' is cut short: it has {size} bytes; download it again")
    length = int.from_bytes(first[:LENGTH_BYTES], "little")
    if length > LONGEST_HEADER:
        raise InputError(
            f"'{path}' is no safetensors file (it begins with {first[:LENGTH_BYTES]!r}); download it again"
        )
    if LENGTH_BYTES + length > size:
        raise InputError(
            f"'{path}' is cut short: its header alone takes {LENGTH_BYTES + length} bytes and the file has {size}; "
            "download it again"
        )


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    """The tensors as the header's JSON has them; InputError if it is none, or names one twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            raise ValueError(f"'{next(name for name in names if names.count(name) > 1)}' stands twice")
        return dict(pairs)

    try:
        header = json.loads(text.decode(), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise InputError(f"'{path}': its header is broken ({error}); download it again") from error
    if not isinstance(header, dict) or not text.startswith(b"{"):
        raise InputError(f"'{path}': its header is no JSON object; download it again")
    notes = header.pop("__metadata__", None) or {}
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        raise InputError(f"'{path}': its header is broken at __metadata__; download it again")
    return header


def _entry(path: Path, name: str, value: Any, data: int) -> TensorEntry:
    """One tensor, whose offsets count from `data`; InputError if they do not fit its type and shape."""
    try:
        dtype, shape, (start, end) = value["dtype"], value["shape"], value["data_offsets"]
        numbers = [*shape, start, end]
        bits = BITS[dtype] * math.prod(shape)
        right = all(type(number) is int and number >= 0 for number in numbers) and 8 * (end - start) == bits
    except (KeyError, TypeError, ValueError):
        right = False
    if not right:
        raise InputError(f"'{path}': its header is broken at tensor '{name}' ({str(value)[:120]}); download it again")
    return TensorEntry(path, dtype, tuple(shape), data + start, data + end)


def _check_extent(path: Path, entries: Iterable[TensorEntry], data: int, size: int) -> None:
    """InputError if the tensors do not fill the file from the header to its end."""
    end = data
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.end)):
        if entry.start != end:
            raise InputError(f"'{path}': its header is broken, tensors overlap or leave gaps; download it again")
        end = entry.end
    if size < end:
        raise InputError(f"'{path}' is cut short: it has {size} of {end} bytes; download it again")
    if size > end:
        raise InputError(f"'{path}' has {size - end} bytes more than its header describes; download it again")
