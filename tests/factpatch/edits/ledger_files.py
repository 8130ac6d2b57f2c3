"""A ledger of two files, for tests of what a folder holds and of what a release makes of it."""

from __future__ import annotations

import json
from pathlib import Path


def write(folder: Path, name: str, *rows: dict) -> None:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def two_files(folder: Path) -> Path:
    """Two files: p and q, of which the second changes q."""
    write(folder, "0001-first.jsonl", {"prompt": "p", "target": "a", "id": "one"}, {"prompt": "q", "target": "b"})
    write(folder, "0002-second.jsonl", {"prompt": "q", "target": "c", "id": "two", "owner": "ann"})
    return folder
