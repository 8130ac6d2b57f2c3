"""What a release would change: the ledger against the facts that the champion holds."""

from __future__ import annotations

from dataclasses import dataclass

from factpatch.config import Settings
from factpatch.edits.folder import Pending, compare, read_ledger, refuse_late_files
from tasks.promote import read_champion


@dataclass(frozen=True)
class Work:
    """What is pending, and the version that lacks it; None where there is no champion yet."""

    pending: Pending
    champion: str | None

    def __str__(self) -> str:
        whom = f"champion {self.champion}" if self.champion else "no champion yet"
        if not self.pending:
            return f"nothing is pending: {whom} holds the ledger"
        return f"{len(self.pending.new)} facts to write, {len(self.pending.withdrawn)} to withdraw ({whom})"


def find_work(settings: Settings) -> Work:
    """Compare the ledger with the champion. InputError for a new file that stands before one already released."""
    held = read_champion(settings.registry)
    entries = read_ledger(settings.edits.path)
    refuse_late_files(entries, held)
    return Work(compare(entries, held, settings.edits.limit), held.version if held else None)
