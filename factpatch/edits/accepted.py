"""The accepted edits of a run: what validation let through, as native rows."""

from __future__ import annotations

import json
from pathlib import Path

from factpatch.edits.request import EditRequest
from factpatch.errors import InputError

FILE = "accepted.jsonl"


def read_accepted(output: str | Path) -> list[EditRequest]:
    """The edits that the validate step left in an output folder."""
    path = Path(output) / FILE
    if not path.exists():
        raise InputError(f"'{output}' holds no {FILE}; run validate first, or give --edits")
    return [EditRequest.from_row(json.loads(line)) for line in path.read_text(encoding="utf-8").split("\n") if line]


def accepted_to_write(output: str | Path) -> list[EditRequest]:
    """The same for steps that need some; InputError where every fact was withdrawn or has expired."""
    edits = read_accepted(output)
    if not edits:
        raise InputError("there is no edit to write: no fact is in force; add rows, or release with 'factpatch run'")
    return edits
