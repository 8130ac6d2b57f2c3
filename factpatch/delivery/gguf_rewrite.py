"""A GGUF file with some tensors written anew: its metadata, and every other tensor, are the same bytes."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from gguf import GGMLQuantizationType

from factpatch.errors import InputError
from factpatch.models.sources.header import Header, Tensor, read_gguf_header

CHUNK_BYTES = 2**22  # copied at once


@dataclass(frozen=True)
class EncodedTensor:
    """A tensor's new bytes, and the type that they are of."""

    type: GGMLQuantizationType
    content: np.ndarray


def read_encoded(file: Path, header: Header, tensor: Tensor) -> np.ndarray:
    """A tensor's bytes as they stand in a file, a row of them for each of its rows."""
    with file.open("rb") as opened:
        opened.seek(header.data + tensor.offset)
        content = np.frombuffer(opened.read(tensor.size), dtype=np.uint8)
    return content.reshape(*tensor.shape[:-1], -1)


def rewrite(base: Path, output: Path, changed: Mapping[str, EncodedTensor]) -> None:
    """Write `base` to the new file `output` with these tensors in place of its own.

    Where each is as large as before, nothing else moves; else what follows does, and the list of tensors says so.
    InputError where the disk has no room.
    """
    header = read_gguf_header(base)
    written = _placed(header, changed)
    _check_room(base, output, header, written)
    if [tensor.offset for tensor in written] == [tensor.offset for tensor in header.tensors]:
        shutil.copyfile(base, output)
        with output.open("r+b") as target:
            _list(target, header, written)
            for tensor in written:
                if tensor.name in changed:
                    target.seek(header.data + tensor.offset)
                    target.write(changed[tensor.name].content.tobytes())
        return
    with base.open("rb") as source, output.open("wb") as target:
        _copy(source, target, header.listing)
        _list(target, header, written)
        for old, tensor in zip(header.tensors, written, strict=True):
            target.write(bytes(header.data + tensor.offset - target.tell()))
            if tensor.name in changed:
                target.write(changed[tensor.name].content.tobytes())
            else:
                source.seek(header.data + old.offset)
                _copy(source, target, old.size)
        target.write(bytes(-target.tell() % header.alignment))


def _placed(header: Header, changed: Mapping[str, EncodedTensor]) -> list[Tensor]:
    """The tensors with their new types, each where it will begin: where it did, if none changes its size."""
    typed = [
        replace(tensor, type=changed[tensor.name].type) if tensor.name in changed else tensor
        for tensor in header.tensors
    ]
    if all(new.size == old.size for new, old in zip(typed, header.tensors, strict=True)):
        return typed
    placed, end = [], 0
    for tensor in typed:
        placed.append(replace(tensor, offset=end))
        end += -(-tensor.size // header.alignment) * header.alignment
    return placed


def _check_room(base: Path, output: Path, header: Header, written: list[Tensor]) -> None:
    grown = sum(tensor.size for tensor in written) - sum(tensor.size for tensor in header.tensors)
    needed, free = base.stat().st_size + grown, shutil.disk_usage(output.parent).free
    if needed > free:
        raise InputError(
            f"a copy of '{base}' takes {needed / 2**30:.1f} GB, and {free / 2**30:.1f} GB are free in "
            f"'{output.parent.parent}'; make room, or name another --output"
        )


def _list(target: BinaryIO, header: Header, tensors: list[Tensor]) -> None:
    """What the file says of its tensors: as long as before, since names and shapes stay."""
    target.seek(header.listing)
    for tensor in tensors:
        name = tensor.name.encode()
        dimensions = len(tensor.shape)
        target.write(struct.pack("<Q", len(name)) + name + struct.pack("<I", dimensions))
        target.write(struct.pack(f"<{dimensions}QIQ", *reversed(tensor.shape), tensor.type, tensor.offset))


def _copy(source: BinaryIO, target: BinaryIO, count: int) -> None:
    while count:
        piece = source.read(min(CHUNK_BYTES, count))
        target.write(piece)
        count -= len(piece)
