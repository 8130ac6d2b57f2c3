"""The ledger: files of edit requests, folded in order; every row keeps its place and learns what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from factpatch.edits.loading import Row
from factpatch.edits.request import request_id
from factpatch.errors import InputError

State = Literal["active", "repeated", "contradicted", "superseded", "reverted", "expired", "revert"]
LIVE = frozenset({"active", "repeated", "contradicted"})  # what a release checks; it writes the active ones


@dataclass(frozen=True, slots=True)  # there may be very many
class LedgerEntry:
    """A row of the ledger and what became of it.

    Attributes:
        row: the row, with its file and line.
        id: the edit's name: its own, or the digest of prompt and target. A revert bears that of the row it withdraws.
        state: `active` is in force; `repeated` says again what an earlier row of its file says; `contradicted` has
            a rival in its file, so that neither counts; `superseded`, `reverted` and `expired` were in force once;
            `revert` withdraws others.
        by: the row that brought it into this state, if another one did.
    """

    row: Row
    id: str
    state: State
    by: Row | None = None


def fold(rows: Iterable[Row], today: date) -> list[LedgerEntry]:
    """Every row in the order read, with its state. Rows come file after file, with fields, op and expiry checked.

    A file's row supersedes those of earlier files for the same prompt. Rows of one file that give one prompt different
    targets contradict each other: none of them counts, and what stood before them stays. `revert` withdraws all rows
    before it for its prompt. A row drops on the day it expires; what it superseded stays superseded. Raises InputError
    for a revert of what no earlier row says.
    """
    return _Folding(list(rows), today).entries()


def live_rows(entries: Iterable[LedgerEntry]) -> list[Row]:
    """The rows that a release has to check: all but those that were superseded, reverted or have expired."""
    return [entry.row for entry in entries if entry.state in LIVE]


class _Folding:
    """One pass over the rows: each is visited once when read, once when its file ends and once when it is ended."""

    def __init__(self, rows: Sequence[Row], today: date) -> None:
        self.rows, self.today = rows, today
        self.names = [own_id(row.values) for row in rows]
        self.states: list[State] = ["active"] * len(rows)
        self.by: list[Row | None] = [None] * len(rows)
        self.before: dict[str, list[int]] = {}  # prompt -> positions in earlier files that nothing has ended
        self.here: dict[str, list[int]] = {}  # the same of the present file
        self.bearers: dict[str, str] = {}  # id -> prompt of the row that bears it
        self.reverts: dict[int, str] = {}  # position of a revert -> id of the last row that it withdraws
        self.prompts: set[str] = set()  # every prompt seen so far

    def entries(self) -> list[LedgerEntry]:
        file = None
        for position, row in enumerate(self.rows):
            if row.file != file:
                self._end_file()
                file = row.file
            if row.values.get("op") == "revert":
                self._revert(position, row)
            else:
                self._set(position, row)
        self._end_file()
        return self._named()

    def _set(self, position: int, row: Row) -> None:
        prompt, name = row.values["prompt"], self.names[position]
        self.prompts.add(prompt)
        bearer = self.bearers.get(name)
        if bearer is None or not (bearer in self.here or bearer in self.before):
            self.bearers[name] = prompt
        self.here.setdefault(prompt, []).append(position)

    def _revert(self, position: int, row: Row) -> None:
        prompt, name = row.values.get("prompt"), row.values.get("id", "")
        if prompt is None:
            prompt = self._prompt_of(name)
        elif self.bearers.get(name, prompt) != prompt and not self._bears(prompt, name):
            raise InputError(
                f"{row.where}: the id '{name}' is that of {self.bearers[name]!r}, not of the prompt {prompt!r}; "
                "correct one of them, or leave it out"
            )
        if prompt not in self.prompts:
            what = f"the prompt {row.values['prompt']!r}" if "prompt" in row.values else f"the id '{name}'"
            raise InputError(
                f"{row.where}: nothing before it has {what} that it reverts; correct it, or delete the row"
            )
        ended = self.before.pop(prompt, []) + self.here.pop(prompt, [])
        self._end(ended, "reverted", row)
        self.states[position] = "revert"
        self.reverts[position] = name or (self.names[ended[-1]] if ended else "")

    def _prompt_of(self, name: str) -> str:
        """The prompt of the row that bears an id, or got it as its default because an earlier row bore its own."""
        if name in self.bearers:
            return self.bearers[name]
        live = (position for group in (self.here, self.before) for found in group.values() for position in found)
        said = (self.rows[position].values for position in live)
        return next((row["prompt"] for row in said if request_id(row["prompt"], row["target"]) == name), "")

    def _bears(self, prompt: str, name: str) -> bool:
        """Does a row in force for that prompt bear that id?"""
        positions = [*self.before.get(prompt, []), *self.here.get(prompt, [])]
        return any(self.names[position] == name for position in positions)

    def _end_file(self) -> None:
        for prompt, group in self.here.items():
            valid = [position for position in group if not self._expired(position)]
            rivals = {self.rows[position].values["target"]: self.rows[position] for position in reversed(valid)}
            if len(rivals) > 1:
                for position in valid:
                    self.states[position] = "contradicted"
                    said = self.rows[position].values["target"]
                    self.by[position] = next(row for target, row in rivals.items() if target != said)
                self.before.setdefault(prompt, []).extend(group)
            else:
                first = self.rows[(valid or group)[0]]
                self._end(self.before.get(prompt, []), "superseded", first)
                self._end(valid[1:], "repeated", first)
                self.before[prompt] = group
        self.here = {}

    def _end(self, positions: Iterable[int], state: State, by: Row) -> None:
        for position in positions:
            self.states[position], self.by[position] = state, by

    def _named(self) -> list[LedgerEntry]:
        """All entries. Of several live rows that bear one id the first keeps it, as validation decides."""
        taken: set[str] = set()
        entries = []
        for position, row in enumerate(self.rows):
            state, by = self.states[position], self.by[position]
            name = self.reverts.get(position, self.names[position])
            if state in LIVE and self._expired(position):
                state, by = "expired", None
            if state in LIVE and name in taken:
                name = request_id(row.values["prompt"], row.values["target"])
            if state in LIVE:
                taken.add(name)
            entries.append(LedgerEntry(row, name, state, by))
        return entries

    def _expired(self, position: int) -> bool:
        expires = self.rows[position].values.get("expires")
        return expires is not None and date.fromisoformat(expires) <= self.today


def own_id(values: Mapping[str, str]) -> str:
    """The id that a row bears: its own, or the default one."""
    return values.get("id") or request_id(values.get("prompt", ""), values.get("target", ""))
