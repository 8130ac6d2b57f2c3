"""The accepted edits of a run: what validation let through, as native rows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from factpatch.edits.request import EditRequest
from factpatch.errors import InputError

ACCEPTED_FILE = "accepted.jsonl"
PROBES_FILE = "probes.jsonl"  # what the run made for some of them, to measure by: {"id", "paraphrases", "locality"}


def read_accepted(output: str | Path) -> list[EditRequest]:
    """The edits that the validate step left in an output folder, with what the probes step made for them."""
    path, made = Path(output) / ACCEPTED_FILE, Path(output) / PROBES_FILE
    if not path.exists():
        raise InputError(f"'{output}' holds no {ACCEPTED_FILE}; run validate first, or give --edits")
    edits = map(EditRequest.from_row, _rows(path))
    return with_made_probes(edits, _rows(made) if made.exists() else [])


def with_made_probes(edits: Iterable[EditRequest], made: Iterable[dict[str, Any]]) -> list[EditRequest]:
    """The edits with the paraphrases and locality probes that the run made for some, by `id`."""
    rows = {row["id"]: row for row in made}
    return [_joined(edit, EditRequest.from_row({**edit.to_row(), **rows.get(edit.id, {})})) for edit in edits]


def _joined(edit: EditRequest, probed: EditRequest) -> EditRequest:
    """The probed edit, which says what was made."""
    kinds = ("paraphrases", "locality")
    return replace(probed, made=tuple(kind for kind in kinds if getattr(probed, kind) != getattr(edit, kind)))


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def accepted_to_write(output: str | Path) -> list[EditRequest]:
    """The accepted edits, for steps that need some; InputError where every fact was withdrawn or has expired."""
    edits = read_accepted(output)
    if not edits:
        raise InputError("there is no edit to write: no fact is in force; add rows, or release with 'factpatch run'")
    return edits
