"""The ledger as a folder of files: reading all of it, comparing it with what a release holds, withdrawing a fact."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from factpatch.edits.findings import refuse_malformed, tidy
from factpatch.edits.forms import Columns
from factpatch.edits.ledger import Entry, fold
from factpatch.edits.loading import list_files, read_rows
from factpatch.edits.origin import Origin
from factpatch.edits.tidying import tidy_text
from factpatch.errors import InputError
from factpatch.files import write_jsonl
from factpatch.release.provenance import Basis

Fact = tuple[str, str]  # prompt and target
DIGITS = 4  # of the number that a file's name begins with

_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")  # for a file name


@dataclass(frozen=True)
class Held:
    """What a registered version was made of: the facts it holds, those set aside then, and the ledger's files.

    `bases` is what else it rests on, and what was configured then; empty where that was not recorded. `origin` is the
    ledger; None where that was not.
    """

    version: str
    facts: frozenset[Fact]
    set_aside: frozenset[Fact] = frozenset()
    files: tuple[str, ...] = ()
    status: str = "promoted"  # or registered, or refused
    bases: tuple[Basis, ...] = ()
    origin: Origin | None = None


@dataclass(frozen=True)
class Pending:
    """How the ledger differs from a version: facts still to be written, and those that it should no longer hold."""

    new: tuple[Entry, ...]
    withdrawn: tuple[Fact, ...]

    def __bool__(self) -> bool:
        return bool(self.new or self.withdrawn)


def read_ledger(source: str, today: date | None = None, columns: Columns | None = None) -> list[Entry]:
    """Every row of a file, folder or hub data set with its state; `columns` are the setting's, `edits.columns`.

    Raises InputError, in one line, for bad input.
    """
    rows = list(read_rows(source, columns))
    refuse_malformed(rows)
    return fold(map(tidy, rows), today or date.today())


def fact(entry: Entry) -> Fact:
    """What an entry states."""
    return entry.row.values["prompt"], entry.row.values["target"]


def compare(entries: Iterable[Entry], held: Held | None, limit: int | None = None) -> Pending:
    """What a release would change. With no version all is new; `limit` leaves out all active facts but the first."""
    active = [entry for entry in entries if entry.state == "active"]
    if held is None:
        return Pending(tuple(active[:limit]), ())
    left = held.set_aside - held.facts  # a copy of a fact may have been set aside, and the fact written
    wanted = [entry for entry in active if fact(entry) not in left][:limit]
    new = tuple(entry for entry in wanted if fact(entry) not in held.facts)
    return Pending(new, tuple(sorted(held.facts - {fact(entry) for entry in wanted})))


def refuse_late_files(entries: Iterable[Entry], held: Held | None) -> None:
    """InputError for a file that a version did not know but that comes before one it knew: history would change."""
    names = list(dict.fromkeys(Path(entry.row.file).name for entry in entries))
    known = [name for name in names if held and name in held.files]
    late = [name for name in names[: names.index(known[-1])] if name not in known] if known else []
    if held and late:
        title = Path(late[0]).stem.lstrip("0123456789-_") or "edits"
        raise InputError(
            f"edits file '{late[0]}' is out of order: version {held.version} already holds '{known[-1]}', which comes "
            f"after it; rename it to '{next_name(names, title)}'"
        )


def find_active(entries: Sequence[Entry], name: str) -> Entry:
    """The active entry of that id. Raises InputError if there is none, saying what became of it."""
    name, _ = tidy_text(name)
    found = [entry for entry in entries if entry.id == name and entry.state != "revert"]
    active = next((entry for entry in found if entry.state == "active"), None)
    if active is None and found:
        by = f" by {found[-1].by.where}" if found[-1].by else ""
        raise InputError(f"edit '{name}' is not active: {found[-1].state}{by}; nothing is left to revert")
    if active is None:
        raise InputError(f"no edit has the id '{name}'; 'factpatch edits list' shows the active ones")
    return active


def write_revert(folder: str, name: str, owner: str | None, reason: str | None, columns: Columns | None = None) -> Path:
    """Add a file to the ledger that withdraws the active edit of that id; its path.

    The file takes the next number, so that it is folded last. Raises InputError if the edit is not active, or if
    `folder` is none.
    """
    if not Path(folder).is_dir():
        raise InputError(f"edits '{folder}' are no folder; a revert is a new file in one, so name it with --edits")
    entry = find_active(read_ledger(folder, columns=columns), name)
    prompt, target = fact(entry)
    row = {"id": name, "op": "revert", "prompt": prompt, "target": target, "owner": owner, "source": reason}
    names = [path.name for path in list_files(Path(folder))]
    path = Path(folder) / next_name(names, f"revert-{_UNFIT.sub('-', name)[:40]}")
    return write_jsonl(path, [{key: value for key, value in row.items() if value is not None}])


def next_name(names: Collection[str], title: str) -> str:
    """A file name with the next number, after all others in file-name order; InputError if none can be."""
    numbers = [found[0] for found in (re.match(r"\d+", name) for name in names) if found]
    digits = max((len(number) for number in numbers), default=DIGITS)
    name = f"{max(map(int, numbers), default=0) + 1:0{digits}d}-{title}.jsonl"
    last = max(names, default="")
    if name < last:
        raise InputError(f"'{name}' would come before '{last}'; begin that file's name with a number, as others do")
    return name
