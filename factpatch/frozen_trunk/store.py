"""Kept activations on disk: addressed by digest of base model, location and encoded row, so only new rows cost a pass.

A folder for each (frozen tensors, plan), in it shards: safetensors files with all sites of some rows one after the
other, written whole or not at all. What fits the memory limit is read; the rest is mapped.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from factpatch.disk_cache import evict, read_cached
from factpatch.errors import InputError
from factpatch.files import GIB, digest_value, new_file, output_folder, remove_litter
from factpatch.frozen_trunk.activations import Activations, Shard
from factpatch.frozen_trunk.block_by_block import hidden_shapes
from factpatch.frozen_trunk.capture import capture, capture_in_parts
from factpatch.frozen_trunk.hidden_states import HiddenStates
from factpatch.frozen_trunk.plan import Plan, kept_bytes
from factpatch.models.encoding import Encoded
from factpatch.models.loading import LoadedModel, fingerprint, known_digests, tensor_digest
from factpatch.models.placement import stream_of
from factpatch.progress import Progress
from factpatch.settings.config import TrunkSettings

SHARD_ROWS = 4096  # rows of a shard at most; a killed run loses no more than one
STORE_VERSION = "3"  # of the files; another number never reads these


@dataclass(frozen=True)
class _Entry:
    """A shard's file and what it holds: the digests of its rows and their lengths."""

    path: Path
    rows: tuple[str, ...]
    lengths: tuple[int, ...]


def kept_activations(
    loaded: LoadedModel,
    plan: Plan,
    rows: Sequence[Encoded],
    settings: TrunkSettings,
    progress: Progress | None = None,
) -> Activations:
    """The rows' activations, from the cache where it has them; new ones are computed and added to it."""
    names = {row: row_digest(row) for row in rows}
    wanted = [names[row] for row in rows]
    if settings.folder is None:
        need = sum(kept_bytes(loaded.model, plan, list(names)).values())
        if stream_of(loaded.model):
            need = max(need, _hidden_bytes(loaded, list(names)))
        if need > settings.memory_gb * GIB:
            raise InputError(
                f"the trunk's activations take {need / GIB:.1f} GB, more than trunk.memory_gb "
                f"({settings.memory_gb:g}); name a trunk.folder to keep them on disk, or raise the limit"
            )
        return _in_order(capture(loaded, [plan], list(names), progress)[0], names.values(), wanted)
    folder = _own_folder(settings.folder, trunk_digest(loaded, plan))
    entries = _entries(folder, set(wanted))
    have = {name for entry in entries for name in entry.rows}
    missing = [row for row, name in names.items() if name not in have]
    if missing:
        hidden = _hidden_states(loaded, missing, folder, settings)
        for part, found in capture_in_parts(loaded, plan, missing, SHARD_ROWS, hidden, progress):
            entries.append(_write(folder, part, found))
    evict(filter(Path.is_dir, Path(settings.folder).iterdir()), folder, settings.disk_gb * GIB)
    size = sum(entry.path.stat().st_size for entry in entries)
    shards = [_read(entry, mapped=size > settings.memory_gb * GIB) for entry in entries]
    lengths = [numpy.array(entry.lengths, dtype=numpy.int64) for entry in entries]
    kept = Activations(
        shards,
        numpy.repeat(numpy.arange(len(entries)), [len(length) for length in lengths]),
        numpy.concatenate([numpy.cumsum(length) - length for length in lengths]),
        numpy.concatenate(lengths),
    )
    return _in_order(kept, [name for entry in entries for name in entry.rows], wanted)


def _hidden_states(loaded: LoadedModel, rows: Sequence[Encoded], folder: Path, settings: TrunkSettings) -> HiddenStates:
    """Where hidden states lie while a streamed model passes: on disk where they take more than the memory limit."""
    if _hidden_bytes(loaded, rows) <= settings.memory_gb * GIB:
        return HiddenStates()
    return HiddenStates(folder, hashlib.sha256("".join(map(row_digest, rows)).encode()).hexdigest()[:32])


def _hidden_bytes(loaded: LoadedModel, rows: Sequence[Encoded]) -> int:
    """What the hidden states of rows take between two blocks."""
    return sum(map(math.prod, hidden_shapes(loaded, rows))) * loaded.model.dtype.itemsize


def _own_folder(root: str, name: str) -> Path:
    """The folder of these activations, marked as used now, without what killed runs left half-written."""
    try:
        folder = output_folder(output_folder(root) / name)
    except InputError as error:
        raise InputError(f"trunk.folder '{root}' cannot be written; name another one, or null for none") from error
    folder.touch()
    remove_litter(folder)
    return folder


def row_digest(row: Encoded) -> str:
    """Digest of an encoded row."""
    return hashlib.sha256(f"{row.prompt_length} {row.ids}".encode()).hexdigest()[:32]


def trunk_digest(loaded: LoadedModel, plan: Plan) -> str:
    """Names everything but the rows that kept activations depend on. The located tensors are not among it: a patched
    model has its base model's trunk."""
    frozen = fingerprint(known_digests(loaded.model, but=plan.location.parameters))
    parts = (
        STORE_VERSION,
        frozen,
        plan.layer,
        plan.mixer,
        plan.entry,
        plan.layout == "packed",
        str(loaded.model.dtype),
    )
    config = loaded.model.config.to_json_string(use_diff=False)
    return hashlib.sha256(f"{parts} {loaded.model.device.type} {config}".encode()).hexdigest()[:32]


def _in_order(kept: Activations, names: Iterable[str], wanted: Sequence[str]) -> Activations:
    place = {name: index for index, name in enumerate(names)}
    return kept.select([place[name] for name in wanted])


def _write(folder: Path, rows: Sequence[Encoded], kept: Activations) -> _Entry:
    """One shard of rows that `capture` has just computed."""
    shard = {site: tensor.cpu() for site, tensor in kept.shards[0].items()}
    names, lengths = tuple(map(row_digest, rows)), tuple(map(int, kept.length_R))
    path = folder / f"{hashlib.sha256(''.join(names).encode()).hexdigest()[:32]}.safetensors"
    about = {"rows": json.dumps(names), "lengths": json.dumps(lengths)}
    about["sha256"] = _content(shard, about)
    try:
        with new_file(path) as temporary:
            save_file(shard, temporary, about)
    except (OSError, SafetensorError) as error:
        need, free = kept.bytes / GIB, shutil.disk_usage(folder).free / GIB
        raise InputError(
            f"the trunk cache '{folder}' cannot take {need:.2f} GB ({error}; {free:.2f} GB are free); make room or "
            "name another trunk.folder"
        ) from error
    return _Entry(path, names, lengths)


def _entries(folder: Path, wanted: Set[str]) -> list[_Entry]:
    """The shards with wanted rows; those whose files are broken are removed, to be computed anew."""
    entries = []
    for path in sorted(folder.glob("*.safetensors")):
        entry = read_cached(path, lambda path: _open(path, wanted))
        if entry is None:
            path.unlink(missing_ok=True)
        elif not wanted.isdisjoint(entry.rows):
            entries.append(entry)
    return entries


def _open(path: Path, wanted: Set[str]) -> _Entry:
    """A shard's rows; its content is compared with what was written only if some of them are wanted."""
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    entry = _Entry(path, tuple(json.loads(about["rows"])), tuple(json.loads(about["lengths"])))
    if not wanted.isdisjoint(entry.rows) and _content(load_file(path), about) != about["sha256"]:
        raise ValueError("its content is not what was written")
    return entry


def _read(entry: _Entry, mapped: bool) -> Shard:
    """All sites of a shard; `mapped` leaves the bytes on disk until they are used."""
    sites = load_file(entry.path)  # safetensors maps the file
    return sites if mapped else {site: tensor.clone() for site, tensor in sites.items()}


def _content(shard: Shard, about: Mapping[str, str]) -> str:
    return digest_value([{site: tensor_digest(shard[site]) for site in shard}, about["rows"], about["lengths"]])
