"""From rows to findings: tidy and refuse before the fold, count faults after it, then settle what becomes of each row.

Judging the counts is left to the caller: `count_faults` gives a column for every check, and `settle` takes back which
rows were flagged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from factpatch.edits.checks import CHECKS, FORM_CHECKS, Check
from factpatch.edits.loading import Row
from factpatch.edits.request import EditRequest
from factpatch.edits.survey import Survey
from factpatch.edits.tidying import tidy_text
from factpatch.errors import InputError


@dataclass(frozen=True)
class ValidationOutcome:
    """What became of the rows: those of edits to write, those set aside with their reasons, and all that was found."""

    rows: tuple[dict[str, Any], ...]
    quarantined: tuple[dict[str, Any], ...]
    findings: tuple[dict[str, Any], ...]

    def accepted(self, limit: int | None = None) -> Iterator[EditRequest]:
        """The edits to write, one at a time, as there may be very many."""
        return map(EditRequest.from_row, self.rows[:limit])


def refuse_malformed(rows: Iterable[Row]) -> None:
    """Raise InputError, naming the first such row, if any lacks a field or holds one of the wrong kind."""
    complaint, more = "", 0
    for row in rows:
        check = next((check for check in FORM_CHECKS if check.faults(row)), None)
        if check and complaint:
            more += 1
        elif check:
            complaint = f"{row.where}: {check.faults(row)[0]}; {check.fix}"
    if complaint:
        raise InputError(f"{complaint} (and {more} more)" if more else complaint)


def tidy(row: Row) -> Row:
    """The row with tidy texts; `stray` and `odd` say what was mended."""
    stray: list[str] = []
    odd: list[str] = []
    values = {}
    for name, value in row.values.items():
        found: list[str] = []
        values[name] = _tidy(value, found)
        odd += (f"{name}: {character}" for character in dict.fromkeys(found))
        if not found and values[name] != value:
            stray.append(name)
    return dataclasses.replace(row, values=values, stray=tuple(stray), odd=tuple(odd)) if stray or odd else row


def count_faults(rows: Sequence[Row], survey: Survey) -> dict[str, list[int]]:
    """For every check, the number of faults in each row; 0 is right."""
    return {check.name: [len(check.faults(row, survey)) for row in rows] for check in CHECKS}


def settle(rows: Sequence[Row], survey: Survey, flagged: Mapping[str, AbstractSet[int]]) -> ValidationOutcome:
    """Set aside or mend the rows at the flagged positions (by name of check), and accept the others as they are."""
    accepted, quarantined, findings = [], [], []
    for position, row in enumerate(rows):
        found = [check for check in CHECKS if position in flagged[check.name]]
        entries = [_finding(row, check, survey) for check in found]
        findings += entries
        reasons = [entry for entry in entries if entry["severity"] == "quarantine"]
        if reasons:
            quarantined.append({"file": row.file, "row": row.number, "reasons": reasons, "edit": row.values})
        else:
            accepted.append(_mend(row, found, survey) if found else row.values)
    return ValidationOutcome(tuple(accepted), tuple(quarantined), tuple(findings))


def _finding(row: Row, check: Check, survey: Survey) -> dict[str, Any]:
    return {
        "check": check.name,
        "severity": check.severity,
        "file": row.file,
        "row": row.number,
        "prompt": row.values["prompt"],
        "target": row.values["target"],
        "faults": check.faults(row, survey),
    }


def _mend(row: Row, found: Iterable[Check], survey: Survey) -> dict[str, Any]:
    """The row's fields without the texts that its repairs drop."""
    values = dict(row.values)
    for check in found:
        faults = set(check.faults(row, survey))
        for name in values.keys() & set(check.drops):
            values[name] = _without(values[name], faults)
    return values


def _without(value: Any, faults: AbstractSet[str]) -> Any:
    """A text that is no fault, else None; a list without the texts and probes that are or hold one."""
    if isinstance(value, list):
        return [item for item in value if _without(item, faults) is not None]
    held = value.values() if isinstance(value, dict) else (value,)
    return None if any(text in faults for text in held) else value


def _tidy(value: Any, odd: list[str]) -> Any:
    """A value with all its texts tidied; the characters that were mended are added to `odd`."""
    if isinstance(value, str):
        text, found = tidy_text(value)
        odd += found
        return text
    if isinstance(value, list):
        return [_tidy(item, odd) for item in value]
    if isinstance(value, dict):
        return {name: _tidy(item, odd) for name, item in value.items()}
    return value
