"""What a release would change: the ledger compared with the version in use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from factpatch.edits.folder import Fact, fact, next_name
from factpatch.edits.ledger import LedgerEntry
from factpatch.edits.origin import Origin
from factpatch.errors import InputError
from factpatch.release.provenance import Provenance


@dataclass(frozen=True)
class RegisteredVersion:
    """A version in the registry: the facts it holds, those set aside then, and the ledger's files.

    `provenances` are of the settings it was made with and of those configured then; empty where not recorded. `origin`
    is the ledger; None where not recorded.
    """

    version: str
    facts: frozenset[Fact]
    set_aside: frozenset[Fact] = frozenset()
    files: tuple[str, ...] = ()
    status: str = "promoted"  # or registered, or refused
    provenances: tuple[Provenance, ...] = ()
    origin: Origin | None = None


@dataclass(frozen=True)
class PendingChanges:
    """How the ledger differs from a version: facts still to be written, and those that it should no longer hold."""

    new: tuple[LedgerEntry, ...]
    withdrawn: tuple[Fact, ...]

    def __bool__(self) -> bool:
        return bool(self.new or self.withdrawn)


def pending_changes(
    entries: Iterable[LedgerEntry], registered: RegisteredVersion | None, limit: int | None = None
) -> PendingChanges:
    """What a release would change. With no version all is new; `limit` leaves out all active facts but the first."""
    active = [entry for entry in entries if entry.state == "active"]
    if registered is None:
        return PendingChanges(tuple(active[:limit]), ())
    left = registered.set_aside - registered.facts  # a copy of a fact may have been set aside, and the fact written
    wanted = [entry for entry in active if fact(entry) not in left][:limit]
    new = tuple(entry for entry in wanted if fact(entry) not in registered.facts)
    return PendingChanges(new, tuple(sorted(registered.facts - {fact(entry) for entry in wanted})))


def refuse_late_files(entries: Iterable[LedgerEntry], registered: RegisteredVersion | None) -> None:
    """InputError for a file that a version did not know but that comes before one it knew: history would change."""
    names = list(dict.fromkeys(Path(entry.row.file).name for entry in entries))
    known = [name for name in names if registered and name in registered.files]
    late = [name for name in names[: names.index(known[-1])] if name not in known] if known else []
    if registered and late:
        title = Path(late[0]).stem.lstrip("0123456789-_") or "edits"
        raise InputError(
            f"edits file '{late[0]}' is out of order: version {registered.version} already holds '{known[-1]}', "
            f"which comes after it; rename it to '{next_name(names, title)}'"
        )
