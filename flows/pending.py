"""What a release would change: the ledger and the settings against what the champion holds and rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from factpatch.edits.folder import read_ledger
from factpatch.edits.ledger import LedgerEntry
from factpatch.files import read_json
from factpatch.release.pending import PendingChanges, RegisteredVersion, pending_changes, refuse_late_files
from factpatch.release.provenance import Provenance, provenance_of, why_changed
from factpatch.release.refusals import Refusal, attempt_digest, find_refusal, remember_refusal
from factpatch.settings.config import Settings
from tasks.promote import stopping_gates
from tasks.tools.mlflow_registry import read_champion, read_newest


@dataclass(frozen=True)
class Work:
    """What the champion (None: there is none yet) lacks or should no longer hold.

    Attributes:
        changed: why all its facts are to be written anew, such as another base model; None if they are not.
        waiting: the newest version, if that holds the ledger as it is without being the champion: a release would only
            make it again, and undo a rollback or a person's decision.
        attempt: names what a release would be tried with.
        refused: the same attempt, if gates have refused it and the registry does not hold it.
    """

    pending: PendingChanges
    champion: str | None
    changed: str | None
    waiting: RegisteredVersion | None
    attempt: str
    refused: Refusal | None

    @property
    def needs_release(self) -> bool:
        return bool(self.pending or self.changed) and self.waiting is None and self.refused is None

    def __str__(self) -> str:
        whom = f"champion {self.champion}" if self.champion else "no champion yet"
        if not self.pending and not self.changed:
            return f"nothing is pending: {whom} holds the ledger"
        told = f"{len(self.pending.new)} to write, {len(self.pending.withdrawn)} to withdraw ({whom})"
        if self.changed:
            told += f"; every fact is to be written anew, as {self.changed}"
        if self.waiting is not None and self.waiting.status == "refused":
            return f"{told}; version {self.waiting.version} was refused with them: change rows or settings, and run"
        if self.waiting is not None:
            number = self.waiting.version
            return f"{told}; version {number} has done so: 'factpatch promote {number}' uses it"
        if self.refused is not None:
            gates = ", ".join(self.refused.gates)
            return f"{told}; this was refused at {self.refused.when} ({gates}): change rows or settings, or run by hand"
        return told


def find_work(settings: Settings) -> Work:
    """Compare the ledger with the champion. InputError for a new file that stands before one already released."""
    entries, limit = read_ledger(settings.edits.path, columns=settings.edits.columns), settings.edits.limit
    registered, provenance = read_champion(settings.registry), provenance_of(settings)
    refuse_late_files(entries, registered)
    pending = pending_changes(entries, registered, limit)
    changed = why_changed(provenance, registered.provenances) if registered else None
    newest = read_newest(settings.registry) if pending or changed else None
    waiting = newest if newest and not pending_changes(entries, newest, limit) else None
    if waiting and why_changed(provenance, waiting.provenances):
        waiting = None
    attempt = _attempt(settings, entries, provenance)
    refused = find_refusal(settings.registry, attempt)
    return Work(pending, registered.version if registered else None, changed, waiting, attempt, refused)


def attempt_of(settings: Settings) -> str:
    """Names what a release would be tried with now; the registry is not asked."""
    return _attempt(settings, read_ledger(settings.edits.path, columns=settings.edits.columns), provenance_of(settings))


def _attempt(settings: Settings, entries: Sequence[LedgerEntry], provenance: Provenance) -> str:
    rows = [entry.row.values for entry in entries if entry.state == "active"]
    return attempt_digest(settings, rows[: settings.edits.limit], provenance)


def note_refusal(settings: Settings, attempt: str, output: str) -> None:
    """Remember the attempt behind the release in `output` if gates refused it and the registry does not hold it."""
    gates = refusing_gates(output)
    if gates and read_json(Path(output) / "release.json")["version"] is None:
        remember_refusal(settings.registry, attempt, gates)


def refusing_gates(output: str) -> list[str]:
    """The gates that refused the release in `output`; none of one that passed."""
    release = read_json(Path(output) / "release.json")
    return stopping_gates(release["gates"]) if release["status"] == "refused" else []
