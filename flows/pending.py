"""What a release would change: the ledger against the facts that the champion holds."""

from __future__ import annotations

from dataclasses import dataclass

from factpatch.config import Settings
from factpatch.edits.folder import Held, Pending, compare, read_ledger, refuse_late_files
from tasks.promote import read_champion, read_newest


@dataclass(frozen=True)
class Work:
    """What the champion (None: there is none yet) lacks or should no longer hold.

    `waiting` is the newest version, if that holds the ledger as it is without being the champion: a release would only
    make it again, and undo a rollback or a person's decision.
    """

    pending: Pending
    champion: str | None
    waiting: Held | None

    @property
    def needs_release(self) -> bool:
        return bool(self.pending) and self.waiting is None

    def __str__(self) -> str:
        whom = f"champion {self.champion}" if self.champion else "no champion yet"
        if not self.pending:
            return f"nothing is pending: {whom} holds the ledger"
        counted = f"{len(self.pending.new)} to write, {len(self.pending.withdrawn)} to withdraw ({whom})"
        if self.waiting is None:
            return counted
        if self.waiting.status == "refused":
            return f"{counted}; version {self.waiting.version} was refused with them: change rows or settings, and run"
        return (
            f"{counted}; version {self.waiting.version} has done so: 'factpatch promote {self.waiting.version}' uses it"
        )


def find_work(settings: Settings) -> Work:
    """Compare the ledger with the champion. InputError for a new file that stands before one already released."""
    entries, limit = read_ledger(settings.edits.path), settings.edits.limit
    held = read_champion(settings.registry)
    refuse_late_files(entries, held)
    pending = compare(entries, held, limit)
    newest = read_newest(settings.registry) if pending else None
    waiting = newest if newest and not compare(entries, newest, limit) else None
    return Work(pending, held.version if held else None, waiting)
