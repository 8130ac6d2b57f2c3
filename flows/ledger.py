"""What `factpatch edits ACTION` prints: one row a line, with where it stands, who answers for it and what it says."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from factpatch.edits.folder import read_ledger, write_revert
from factpatch.edits.ledger import LedgerEntry
from factpatch.errors import RefusedError
from factpatch.preflight.environment import user_name
from factpatch.settings.config import Settings
from flows.console import printable, quoted


def list_active(args: argparse.Namespace, settings: Settings) -> int:
    """The facts in force."""
    entries = read_ledger(settings.edits.path, columns=settings.edits.columns)
    entries = [entry for entry in entries if entry.state == "active"]
    _print_rows([_described(entry) for entry in entries])
    print(f"{len(entries)} active")
    return 0


def list_pending(args: argparse.Namespace, settings: Settings) -> int:
    """What the next release would write (+) and withdraw (-)."""
    from flows.pending import find_work
    from flows.plan import read_plan
    from flows.takeover import check_ledger

    plan = read_plan(settings, compare=True)
    check_ledger(plan)
    work = find_work(plan)
    _print_rows([("+", *_described(entry)) for entry in work.pending.new])
    _print_rows([("-", _said(prompt, target)) for prompt, target in work.pending.withdrawn])
    print(work)
    return 0


def list_conflicts(args: argparse.Namespace, settings: Settings) -> int:
    """Rows that disagree: those that a later file settled, and those of one file, which are refused."""
    entries = read_ledger(settings.edits.path, columns=settings.edits.columns)
    settled = [entry for entry in entries if entry.state == "superseded" and _disagrees(entry)]
    open_ones = [entry for entry in entries if entry.state == "contradicted"]
    _print_rows([_told(entry) for entry in (*settled, *open_ones)])
    print(f"{len(settled)} superseded by a later file, {len(open_ones)} contradict each other in one file")
    if open_ones:
        places = " and ".join(_place(entry) for entry in open_ones[:2])
        raise RefusedError(f"{places} contradict each other, so neither counts; keep the row that is right")
    return 0


def show_log(args: argparse.Namespace, settings: Settings) -> int:
    """Every row there ever was, oldest first, with what became of it."""
    entries = read_ledger(settings.edits.path, columns=settings.edits.columns)
    _print_rows([_told(entry) for entry in entries])
    counts = {state: sum(entry.state == state for entry in entries) for state in {entry.state for entry in entries}}
    print(", ".join(f"{count} {state}" for state, count in sorted(counts.items())))
    return 0


def revert(args: argparse.Namespace, settings: Settings) -> int:
    """Withdraw an active fact by a new file."""
    columns = settings.edits.columns
    path = write_revert(settings.edits.path, args.id, args.owner or user_name(), args.reason, columns)
    print(f"{path}: withdraws {printable(args.id)}; have it reviewed, and the next release drops the fact")
    return 0


ACTIONS: dict[str, Callable[[argparse.Namespace, Settings], int]] = {
    "list": list_active,
    "pending": list_pending,
    "conflicts": list_conflicts,
    "log": show_log,
    "revert": revert,
}


def _described(entry: LedgerEntry) -> tuple[str, ...]:
    values = entry.row.values
    facts = (entry.id, _place(entry), values.get("owner", "-"), values.get("source", "-"))
    return *map(printable, facts), _said(values.get("prompt", ""), values.get("target", ""))


def _told(entry: LedgerEntry) -> tuple[str, ...]:
    name, place, *rest = _described(entry)
    by = f"{entry.state} by {Path(entry.by.file).name}:{entry.by.number}" if entry.by else entry.state
    return name, place, by, *rest


def _place(entry: LedgerEntry) -> str:
    return f"{entry.row.file}:{entry.row.number}"


def _said(prompt: str, target: str) -> str:
    return f"{quoted(prompt)} -> {quoted(target)}"


def _disagrees(entry: LedgerEntry) -> bool:
    return entry.by is not None and entry.by.values["target"] != entry.row.values["target"]


def _print_rows(rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest text; the last one as it is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1] if rows else []
    for row in rows:
        print("  ".join([*(f"{text:<{width}}" for text, width in zip(row, widths, strict=False)), row[-1]]))
