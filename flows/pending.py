"""What a release would change: the ledger and the settings against what the champion holds and rests on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from factpatch.files import read_json
from factpatch.release.pending import PendingChanges, RegisteredVersion, refuse_late_files
from factpatch.release.plan import ReleasePlan
from factpatch.release.refusals import Refusal, find_refusal, remember_refusal
from tasks.promote import stopping_gates


@dataclass(frozen=True)
class Work:
    """What the champion (None: there is none yet) lacks or should no longer hold.

    Attributes:
        changed: why all its facts are to be written anew, such as another base model; None if they are not.
        waiting: the newest version, if that holds the ledger as it is without being the champion: a release would only
            make it again, and undo a rollback or a person's decision.
        refused: the same attempt, if gates have refused it and the registry does not hold it.
    """

    pending: PendingChanges
    champion: str | None
    changed: str | None
    waiting: RegisteredVersion | None
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


def find_work(plan: ReleasePlan) -> Work:
    """What there is to do. InputError for a new file that stands before one already released."""
    refuse_late_files(plan.ledger, plan.champion)
    version = plan.champion.version if plan.champion else None
    refused = find_refusal(plan.settings.registry, plan.attempt)
    waiting = plan.waiting if plan.pending or plan.changed else None
    return Work(plan.pending, version, plan.changed, waiting, refused)


def note_refusal(plan: ReleasePlan) -> None:
    """Remember the attempt behind a release if gates refused it and the registry does not hold it."""
    gates = refusing_gates(plan.output)
    if gates and read_json(Path(plan.output) / "release.json")["version"] is None:
        remember_refusal(plan.settings.registry, plan.attempt, gates)


def refusing_gates(output: str) -> list[str]:
    """The gates that refused the release in `output`; none of one that passed."""
    release = read_json(Path(output) / "release.json")
    return stopping_gates(release["gates"]) if release["status"] == "refused" else []
