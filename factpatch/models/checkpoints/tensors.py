"""Values and digests of tensors: in memory, and as their bytes lie in a file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from factpatch.errors import InputError
from factpatch.models.checkpoints.folder import Checkpoint
from factpatch.models.checkpoints.headers import TensorEntry
from factpatch.models.checkpoints.in_memory import TYPE_NAMES, MemoryTensor

CHUNK_BYTES = 4 * 2**20  # bytes read at once while a file is hashed
NUMBER_TYPES = {name: dtype for dtype, name in TYPE_NAMES.items()}

_known: dict[Path, tuple[tuple[int, ...], dict[str, str]]] = {}  # a weight file's state when it was hashed, and digests


def tensor_digest(tensor: torch.Tensor) -> str:
    """SHA-256 over dtype, shape and bytes of a tensor."""
    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def same_bits(first: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have the same type, shape and bytes; NaN equals itself then, and -0 is not 0."""
    if first.dtype != other.dtype or first.shape != other.shape:
        return False
    first, second = (tensor.detach().cpu().contiguous().view(-1).view(torch.uint8) for tensor in (first, other))
    return torch.equal(first, second)


def number_type(entry: TensorEntry) -> torch.dtype:
    """The dtype of a tensor in a file."""
    return NUMBER_TYPES[entry.dtype]


def main_type(checkpoint: Checkpoint) -> torch.dtype:
    """The dtype of most bytes of the weights."""
    sizes: Counter[str] = Counter()
    for entry in checkpoint.tensors.values():
        sizes[entry.dtype] += entry.end - entry.start
    return NUMBER_TYPES[sizes.most_common(1)[0][0]]


def read_tensor(entry: TensorEntry) -> torch.Tensor:
    """A tensor as it stands in its file, in memory of its own."""
    if isinstance(entry, MemoryTensor):
        return entry.value.cpu().clone()
    value = torch.empty(entry.shape, dtype=number_type(entry))
    content = value.view(-1).view(torch.uint8).numpy().data
    filled = 0
    try:
        with entry.file.open("rb", buffering=0) as file:
            file.seek(entry.start)
            while filled < len(content):  # one read gives 2 GB at most
                count = file.readinto(content[filled:])
                if not count:
                    raise InputError(f"'{entry.file}' became shorter while it was read; download it again")
                filled += count
    except OSError as error:
        raise InputError(f"'{entry.file}' cannot be read ({error.strerror or error}); download it again") from error
    return value


def file_digests(checkpoint: Checkpoint) -> dict[str, str]:
    """The digest of every tensor in a checkpoint's files, as `tensor_digest` gives it.

    Read in small pieces, never whole. A file that is the same by size, times and place is not hashed again.
    """
    if checkpoint.in_memory:
        return _hash(checkpoint.tensors)
    states = {file: file_state(file) for file in checkpoint.files}
    fresh = {file for file, state in states.items() if _known.get(file, ((), {}))[0] != state}
    digests = _hash({name: entry for name, entry in checkpoint.tensors.items() if entry.file in fresh})
    for file in fresh:
        _known[file] = states[file], {name: digests[name] for name in digests if checkpoint.tensors[name].file == file}
    return {name: _known[entry.file][1][name] for name, entry in checkpoint.tensors.items()}


def _hash(entries: Mapping[str, TensorEntry]) -> dict[str, str]:
    with ThreadPoolExecutor() as pool:  # hashing runs outside the interpreter's lock
        return dict(zip(entries, pool.map(entry_digest, entries.values()), strict=True))


def entry_digest(entry: TensorEntry) -> str:
    """The digest of one tensor in a file, hashed now."""
    if isinstance(entry, MemoryTensor):
        return tensor_digest(entry.value)
    digest = hashlib.sha256(f"{NUMBER_TYPES.get(entry.dtype, entry.dtype)}{entry.shape}".encode())
    left = entry.end - entry.start
    with entry.file.open("rb", buffering=0) as file:
        file.seek(entry.start)
        while left:
            piece = file.read(min(CHUNK_BYTES, left))
            if not piece:
                raise InputError(f"'{entry.file}' became shorter while it was read")
            digest.update(piece)
            left -= len(piece)
    return digest.hexdigest()


def file_state(file: Path) -> tuple[int, ...]:
    """Another one once a file was written to or replaced: its place, size and times."""
    found = file.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
