"""The ledger as a folder of files: reading all of it, finding an active edit, withdrawing a fact."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import date
from pathlib import Path

from factpatch.edits.findings import refuse_malformed, tidy
from factpatch.edits.forms import Columns
from factpatch.edits.ledger import LedgerEntry, fold
from factpatch.edits.loading import list_files, read_rows
from factpatch.edits.tidying import tidy_text
from factpatch.errors import InputError
from factpatch.files import write_jsonl

Fact = tuple[str, str]  # prompt and target
FILE_NAME_DIGITS = 4  # of the number that a file's name begins with

_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")  # for a file name


def read_ledger(source: str, today: date | None = None, columns: Columns | None = None) -> list[LedgerEntry]:
    """Every row of a file, folder or hub data set with its state; `columns` are the setting's, `edits.columns`.

    Raises InputError, in one line, for bad input.
    """
    rows = list(read_rows(source, columns))
    refuse_malformed(rows)
    return fold(map(tidy, rows), today or date.today())


def fact(entry: LedgerEntry) -> Fact:
    """What an entry states."""
    return entry.row.values["prompt"], entry.row.values["target"]


def find_active(entries: Sequence[LedgerEntry], name: str) -> LedgerEntry:
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
    digits = max((len(number) for number in numbers), default=FILE_NAME_DIGITS)
    name = f"{max(map(int, numbers), default=0) + 1:0{digits}d}-{title}.jsonl"
    last = max(names, default="")
    if name < last:
        raise InputError(f"'{name}' would come before '{last}'; begin that file's name with a number, as others do")
    return name
