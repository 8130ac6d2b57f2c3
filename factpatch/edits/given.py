"""Edits as a Python program gives them: rows in memory or the path of a file, tidied and checked as a release does."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factpatch.edits.checks import CHECKS
from factpatch.edits.findings import count_faults, refuse_malformed, settle, tidy
from factpatch.edits.folder import read_ledger
from factpatch.edits.formats.values import row_as_text
from factpatch.edits.forms import Columns, FormReader
from factpatch.edits.ledger import fold, live_rows
from factpatch.edits.loading import Row
from factpatch.edits.request import EditRequest
from factpatch.edits.survey import survey_rows
from factpatch.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EditRow = EditRequest | tuple[str, str] | Mapping[str, Any]
EditRows = str | Path | Iterable[EditRow]

NAME = "edits"  # what stands in place of a file's name where rows are given in memory

log = logging.getLogger(__name__)


def edits_from(
    given: EditRows,
    columns: Columns | None = None,
    budget: int = 32,
    tokenizer: PreTrainedTokenizerBase | None = None,
    embeddings: int | None = None,
) -> list[EditRequest]:
    """The edits to write, tidied; InputError, in one line, for rows that cannot be used and where none is left.

    Rows in memory are (prompt, target) pairs, mappings of a form that files may have, or edit requests; a faulty one is
    refused. A path is that of a file or a folder, or a hub data set's name: its faulty rows are set aside, as a release
    does, with a warning for each.

    Args:
        given: the rows.
        columns: as the setting `edits.columns`.
        budget: tokens that an answer may have, EOS included.
        tokenizer, embeddings: as `survey_rows` takes them.
    """
    in_file = isinstance(given, (str, Path))
    if isinstance(given, (str, Path)):
        ledger = read_ledger(str(given), columns=columns)
    else:
        rows = list(_rows(given, columns))
        refuse_malformed(rows)
        ledger = fold(map(tidy, rows), date.today())
    active = live_rows(ledger)
    survey = survey_rows(active, budget, tokenizer, embeddings)
    counts = count_faults(active, survey)
    flagged = {name: {place for place, count in enumerate(column) if count} for name, column in counts.items()}
    outcome = settle(active, survey, flagged)
    faults = [_told(entry) for entry in outcome.quarantined]
    if faults and not in_file:
        raise InputError(faults[0] + (f" (and {len(faults) - 1} more)" if faults[1:] else ""))
    for fault in faults:
        log.warning("set aside: %s", fault)
    if not outcome.rows:
        raise InputError("there is no edit to write: no row is in force; add rows")
    return list(outcome.accepted())


def _rows(given: Iterable[EditRow], columns: Columns | None) -> Iterator[Row]:
    """Rows in memory as a file would have given them, numbered from 1."""
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise InputError(f"edits are {given!r}; give a list of (prompt, target) pairs, of dicts, or a path")
    reader = FormReader(columns)
    for number, row in enumerate(given, start=1):
        where = f"{NAME} row {number}"
        if isinstance(row, EditRequest):
            raw: Mapping[str, Any] = row.to_row()
        elif isinstance(row, Mapping):
            raw = row
        elif isinstance(row, (tuple, list)) and len(row) == 2:
            raw = dict(zip(("prompt", "target"), row, strict=True))
        else:
            raise InputError(f"{where}: {row!r} is no edit; give (prompt, target) pairs, dicts or EditRequests")
        texts = row_as_text(where, raw)
        try:
            readings = reader.read(texts)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        for reading in readings:
            if reading.unused:
                log.warning("%s: nothing uses %s", where, ", ".join(reading.unused))
            yield Row(NAME, number, reading.values, form=reading.form, part=reading.part)


def _told(entry: Mapping[str, Any]) -> str:
    """Why a row cannot be used, and what to do, in one line."""
    found = entry["reasons"][0]
    check = next(check for check in CHECKS if check.name == found["check"])
    said = f"{found['prompt']!r} -> {found['target']!r}"
    return f"{entry['file']} row {entry['row']} ({said}): {check.meaning} ({'; '.join(found['faults'])}); {check.fix}"
