"""Wordings and neighbours that a version was trained with, kept in a file for the training of the next version.

An increment trains new edits, and without these texts to verify and to keep it would lose how old ones are asked
otherwise, and what lies near them. For people, the file shows what was trained and kept that no file of theirs names.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from factpatch.edits.request import Wording
from factpatch.errors import InputError
from factpatch.files import write_jsonl

CARRY_OVER_FILE = "companions.jsonl"  # in the output folder, and among a version's artifacts
PRESERVED_FILE = "preserved.jsonl"  # in the output folder alone


@dataclass(frozen=True)
class CarriedOver:
    """What the next version takes from this one: further wordings of the edits, and the prompts of their neighbours."""

    wordings: tuple[Wording, ...] = ()
    neighbours: tuple[str, ...] = ()


NOTHING_CARRIED_OVER = CarriedOver()


def write_carried_over(folder: Path, left: CarriedOver) -> Path:
    """Write the texts for the next version into an output folder, one a line; the file's path."""
    rows = [{"kind": "wording", **asdict(wording)} for wording in left.wordings]
    return write_jsonl(
        folder / CARRY_OVER_FILE, [*rows, *({"kind": "neighbour", "prompt": prompt} for prompt in left.neighbours)]
    )


def read_carried_over(folder: Path) -> CarriedOver:
    """The texts that an earlier version left; nothing where there is no file. InputError for a broken one."""
    path = folder / CARRY_OVER_FILE
    if not path.exists() or not path.stat().st_size:
        return NOTHING_CARRIED_OVER
    wordings, near = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path} row {number}: not JSON ({error}); remove the file") from error
        match row:
            case {"kind": "wording", "of": str(of), "prompt": str(prompt), "target": str(target), "chat": bool(chat)}:
                wordings.append(Wording(of, prompt, target, chat))
            case {"kind": "neighbour", "prompt": str(prompt)}:
                near.append(prompt)
            case _:
                raise InputError(f"{path} row {number}: this is neither a wording nor a neighbour; remove the file")
    return CarriedOver(tuple(wordings), tuple(near))


def write_preserved(folder: Path, prompts: Sequence[str]) -> Path:
    """Write the prompts whose answers training preserved into an output folder, one a line; the file's path."""
    return write_jsonl(folder / PRESERVED_FILE, ({"prompt": prompt} for prompt in prompts))


def read_preserved(folder: Path) -> list[str]:
    """The prompts whose answers training preserved; none where there is no file."""
    path = folder / PRESERVED_FILE
    if not path.exists():
        return []
    return [json.loads(line)["prompt"] for line in path.read_text(encoding="utf-8").split("\n") if line]
