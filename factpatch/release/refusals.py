"""Attempts that the gates refused and the registry does not hold: remembered beside it, so that a schedule does not
repeat them for ever."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from factpatch.disk_cache import read_cached_json
from factpatch.files import digest_file, digest_value, output_folder, write_json
from factpatch.release.provenance import Provenance
from factpatch.release.registry import own_file
from factpatch.settings.config import RegistrySettings, Settings
from factpatch.settings.shown import shown_settings
from factpatch.settings.training import decisive

REFUSAL_LIMIT = 32  # attempts that are remembered; the oldest goes first


@dataclass(frozen=True)
class Refusal:
    """An attempt by its digest, when it was made, and the gates that refused it."""

    attempt: str
    when: str  # ISO time, UTC
    gates: tuple[str, ...]


def attempt_digest(settings: Settings, rows: Iterable[Mapping[str, Any]], provenance: Provenance) -> str:
    """Digest of what a release is tried with: rows in force, base model, and settings with the files they name."""
    values = {**shown_settings(settings), "training": decisive(settings.training)}
    named = (settings.training.preservation.prompts, settings.training.augmentation.templates, settings.gates.canaries)
    files = {name: digest_file(Path(name)) for name in named if name and Path(name).is_file()}
    parts = {"settings": values, "rows": list(map(dict, rows)), "files": files}
    return digest_value({**parts, "base": provenance.identity})


def remember_refusal(registry: RegistrySettings, attempt: str, gates: Sequence[str]) -> Path:
    """Note an attempt as refused."""
    path = _file(registry)
    now = Refusal(attempt, datetime.now(UTC).isoformat(timespec="seconds"), tuple(gates))
    kept = [asdict(refusal) for refusal in (*_read(path), now)][-REFUSAL_LIMIT:]
    output_folder(path.parent)
    return write_json(path, {"schema": 1, "refused": kept})


def find_refusal(registry: RegistrySettings, attempt: str) -> Refusal | None:
    """The last refusal of that attempt, if it is remembered."""
    return next((refusal for refusal in reversed(_read(_file(registry))) if refusal.attempt == attempt), None)


def _file(registry: RegistrySettings) -> Path:
    return own_file(registry, "refused", "json")


def _read(path: Path) -> list[Refusal]:
    """None from a file that is absent or damaged: an attempt too many costs no more than time."""
    return read_cached_json(path, _refusals) or []


def _refusals(value: Any) -> list[Refusal]:
    return [Refusal(row["attempt"], row["when"], tuple(row["gates"])) for row in value["refused"]]
