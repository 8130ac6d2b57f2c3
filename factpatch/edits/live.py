"""Live facts: those that the ledger still says and a release holds. They are what a monitor asks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from factpatch.edits.folder import fact
from factpatch.edits.ledger import LedgerEntry
from factpatch.edits.request import EditRequest
from factpatch.files import write_jsonl

FACTS_FILE = "facts.jsonl"


@dataclass(frozen=True)
class LiveFact:
    """A fact in force, with what the released model said to its prompt; None where no release is known."""

    id: str
    prompt: str
    target: str
    released: str | None = None

    def request(self) -> EditRequest:
        """The fact as an edit request, to be asked."""
        return EditRequest(self.id, self.prompt, self.target)


def live_facts(entries: Iterable[LedgerEntry], released: Sequence[Mapping[str, Any]] | None) -> list[LiveFact]:
    """The active facts of a ledger that a release holds; all active ones where there is none.

    `released` are the rows `edits` of the release's evaluate.json.
    """
    active = {fact(entry): entry.id for entry in entries if entry.state == "active"}
    if released is None:
        return [LiveFact(name, *said) for said, name in active.items()]
    return [
        LiveFact(row["id"], row["prompt"], row["target"], row["output"])
        for row in released
        if (row["prompt"], row["target"]) in active
    ]


def write_live(output: Path, facts: Iterable[LiveFact]) -> Path:
    """Leave the facts in an output folder."""
    return write_jsonl(output / FACTS_FILE, map(asdict, facts))


def read_live(output: Path) -> list[LiveFact]:
    """The facts that `write_live` left there."""
    return [
        LiveFact(**json.loads(line)) for line in (output / FACTS_FILE).read_text(encoding="utf-8").split("\n") if line
    ]
