"""What a release goes by, read once: ledger, champion and settings as they were when it began."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from factpatch.edits.folder import fact
from factpatch.edits.ledger import LedgerEntry
from factpatch.edits.request import EditRequest
from factpatch.release.mode import ReleaseMode
from factpatch.release.pending import PendingChanges, RegisteredVersion, pending_changes
from factpatch.release.provenance import Provenance, why_changed
from factpatch.settings.config import Settings


@dataclass(frozen=True)
class ReleasePlan:
    """One immutable value that every step of a release is given its part of; what happens to ledger and registry
    meanwhile belongs to the next release.

    Attributes:
        settings: of the run.
        ledger: every row, with what became of it.
        provenance: what the release rests on besides its facts.
        attempt: digest that names what the release is tried with.
        champion: the version in use; None without one.
        newest: the version registered last, where it is asked for (`flows.plan.read_plan`).
        output: the folder that the steps write into.
        configured: the provenance of the settings as their file has them.
        ledger_source: which state of the ledger it is, such as its git revision, as `lineage.json` holds it.
        edits: those accepted, once they are validated.
        mode: incremental or rebuild with the reason, once it is decided.
    """

    settings: Settings
    ledger: tuple[LedgerEntry, ...]
    provenance: Provenance
    attempt: str
    champion: RegisteredVersion | None
    newest: RegisteredVersion | None = None
    output: str = ""
    configured: Provenance | None = None
    ledger_source: Mapping[str, Any] | None = None
    edits: tuple[EditRequest, ...] = ()
    mode: ReleaseMode | None = None

    @cached_property
    def pending(self) -> PendingChanges:
        """What is new in the ledger, and what the champion should no longer hold."""
        return pending_changes(self.ledger, self.champion, self.settings.edits.limit)

    @cached_property
    def changed(self) -> str | None:
        """Why every fact is to be written anew, such as another base model; None if that need not be."""
        return why_changed(self.provenance, self.champion.provenances) if self.champion else None

    @cached_property
    def waiting(self) -> RegisteredVersion | None:
        """The newest version, if that holds the ledger as it is on the same provenance."""
        if self.newest is None or pending_changes(self.ledger, self.newest, self.settings.edits.limit):
            return None
        return None if why_changed(self.provenance, self.newest.provenances) else self.newest

    @cached_property
    def withdrawn_prompts(self) -> tuple[str, ...]:
        """Prompts that edits once had and none in force has."""
        gone = {entry.row.values["prompt"] for entry in self.ledger if entry.state in ("reverted", "expired")}
        return tuple(sorted(gone - {fact(entry)[0] for entry in self.ledger if entry.state == "active"}))
