"""The ledger: files of edit requests, folded in order into the set that is active."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from operator import itemgetter

from factpatch.edits.loading import Row


def fold(rows: Iterable[Row], today: date) -> list[Row]:
    """The active rows, in the order read. Rows come file after file, with prompt, op and expiry already checked.

    A file's rows supersede those of earlier files for the same prompt; within one file they stand side by side, so
    that a contradiction is found rather than resolved by chance. `revert` removes all rows before it for its prompt.
    A row drops on the day it expires; what it superseded stays superseded.
    """
    active: dict[str, list[tuple[int, Row]]] = {}
    for position, row in enumerate(rows):
        prompt = row.values["prompt"]
        if row.values.get("op") == "revert":
            active.pop(prompt, None)
            continue
        group = active.get(prompt)
        if group and group[-1][1].file == row.file:
            group.append((position, row))
        else:
            active[prompt] = [(position, row)]
    in_order = sorted((pair for group in active.values() for pair in group), key=itemgetter(0))
    return [row for _, row in in_order if not _expired(row, today)]


def _expired(row: Row, today: date) -> bool:
    expires = row.values.get("expires")
    return expires is not None and date.fromisoformat(expires) <= today
