"""The header of a GGUF file: what it states about itself, and which tensors it holds. The weights are not touched.

`gguf.GGUFReader` reads the same, but builds several objects a token: 4 s for a vocabulary of 49,152, 20 s for 262,144.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from factpatch.errors import InputError
from factpatch.models.sources.kinds import MAGIC

VERSIONS = (2, 3)
UNCHECKED_BYTES = 2**16  # bytes that may be read without a look at the file's size
ALIGNMENT = 32  # bytes, of where tensors begin, if the file states no other
NUMBER_FORMATS = {
    GGUFValueType.UINT8: "B",
    GGUFValueType.INT8: "b",
    GGUFValueType.UINT16: "H",
    GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.BOOL: "?",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT64: "d",
}


@dataclass(frozen=True)
class Tensor:
    """A tensor's name, how it is stored, its shape in torch's order, and where it begins among the tensors' bytes."""

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int = 0

    @property
    def values(self) -> int:
        return prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        block, width = GGML_QUANT_SIZES[self.type]
        return self.values // block * width


@dataclass(frozen=True)
class Header:
    """`metadata` by key, with lists of strings (the vocabulary) as their lengths; and the tensors: what is said of them
    begins at byte `listing` of the file, and their own bytes at `data`."""

    metadata: dict[str, Any]
    tensors: tuple[Tensor, ...]
    listing: int = 0
    data: int = 0

    @property
    def alignment(self) -> int:
        """Of the bytes where tensors begin."""
        return int(self.metadata.get("general.alignment", ALIGNMENT))

    @property
    def architecture(self) -> str:
        return str(self.metadata["general.architecture"])

    def own(self, key: str) -> Any:
        """What the file states under a key of its architecture; None if it does not."""
        return self.metadata.get(f"{self.architecture}.{key}")


def read_gguf_header(path: Path) -> Header:
    """Read the header. InputError if this is no GGUF file, a cut or damaged one, or no whole language model."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise InputError(f"'{path}' is not a GGUF file: it does not begin with {MAGIC.decode()}")
            header, end = _read(file)
    except OSError as error:
        raise InputError(f"model file '{path}' cannot be read ({error.strerror})") from error
    except EOFError as error:
        raise InputError(f"'{path}' is cut: it ends within its header, at {size:,} bytes; fetch it again") from error
    except (struct.error, ValueError, TypeError, KeyError, ArithmeticError, MemoryError) as error:
        raise InputError(f"'{path}' is damaged: its header cannot be read ({error}); fetch it again") from error
    if size < end:
        raise InputError(f"'{path}' is cut: it has {size:,} of {end:,} bytes; fetch it again")
    _check_content(path, header)
    return header


def _read(file: BinaryIO) -> tuple[Header, int]:
    """The header, and where the last tensor ends."""
    (version,) = _unpack(file, "I")
    if version not in VERSIONS:
        raise ValueError(f"it has version {version}, known are {' and '.join(map(str, VERSIONS))}")
    tensors, keys = _unpack(file, "QQ")
    metadata = {_text(file): _value(file, GGUFValueType(*_unpack(file, "I"))) for _ in range(keys)}
    listing, found = file.tell(), []
    for _ in range(tensors):
        name, dimensions = _text(file), _unpack(file, "I")[0]
        shape = tuple(reversed(_unpack(file, f"{dimensions}Q")))
        kind, offset = _unpack(file, "IQ")
        found.append(Tensor(name, GGMLQuantizationType(kind), shape, offset))
    alignment = metadata.get("general.alignment", ALIGNMENT)
    data = -(-file.tell() // alignment) * alignment
    end = data + max((tensor.offset + tensor.size for tensor in found), default=0)
    return Header(metadata, tuple(found), listing, data), end


def _value(file: BinaryIO, kind: GGUFValueType) -> Any:
    if kind is GGUFValueType.STRING:
        return _text(file)
    if kind is not GGUFValueType.ARRAY:
        return _unpack(file, NUMBER_FORMATS[kind])[0]
    element, count = GGUFValueType(*_unpack(file, "I")), _unpack(file, "Q")[0]
    if element is GGUFValueType.STRING:
        for _ in range(count):
            _text(file)
        return count
    return list(_unpack(file, f"{count}{NUMBER_FORMATS[element]}"))


def _text(file: BinaryIO) -> str:
    return _bytes(file, _unpack(file, "Q")[0]).decode("utf-8")


def _unpack(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(f"<{form}", _bytes(file, struct.calcsize(f"<{form}")))


def _bytes(file: BinaryIO, count: int) -> bytes:
    if count > UNCHECKED_BYTES and count > os.fstat(file.fileno()).st_size:  # a damaged length, not to be allocated
        raise EOFError
    found = file.read(count)
    if len(found) < count:
        raise EOFError
    return found


def _check_content(path: Path, header: Header) -> None:
    """InputError for a GGUF file that is something else than a whole language model."""
    if "general.architecture" not in header.metadata:
        raise InputError(f"'{path}' does not say which architecture it is of (general.architecture)")
    kind = header.metadata.get("general.type", "model")
    if header.architecture == "clip":
        kind = "mmproj"
    if kind != "model":
        raise InputError(f"'{path}' holds no language model but another part ('{kind}'); name the model's file")
    count = header.metadata.get("split.count", 0)
    if count > 1:
        raise InputError(
            f"'{path}' is one of {count} parts; join them first: llama-gguf-split --merge FIRST_PART WHOLE.gguf"
        )
    if not header.tensors:
        raise InputError(f"'{path}' holds a vocabulary and no weights; name the model's file")
