"""What rivals are measured on: a model, a sample of rows, and the file that their lines are appended to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.rivals.measures import Base, ask_base
from benchmarks.rivals.roster import Rival, Values
from benchmarks.rivals.samples import ANSWER_TOKENS, WORLD, Sample
from factpatch.edits.request import digest_edits
from factpatch.models.loading import LoadedModel
from factpatch.models.locations import Location, decoder_blocks, locate
from factpatch.settings.config import Settings, build_settings, with_overrides

VERSION = 1  # of the measures; lines of another number are of no use
COMMON: Values = {
    "trunk.folder": None,
    "evaluation.cache": None,
    "localization.cache": None,
}  # each run pays for itself
MEASURING: Values = {"evaluation.max_new_tokens": ANSWER_TOKENS, "evaluation.report_tokens": 1, "trunk.folder": None}
EMBEDDED: Values = {
    "capability.suite": "embedded",
    "capability.include": str(Path(__file__).parents[2] / "data" / "capability"),
}
SHARED = {"trial": ("model", "seed", "tuning"), "result": ("model", "seed", "rows", "capability", "brief")}

Line = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """A model and a sample to measure rivals on.

    Attributes:
        model: its folder; `model_name` and `set_name` are for readers.
        output: the file of lines.
        capability: items of each task of the capability suite, the embedded one for what the embedded model knows; 0
            leaves it out.
        brief: measure the edits and the likelihood of text alone.
    """

    loaded: LoadedModel
    sample: Sample
    output: Path
    model: str
    model_name: str
    set_name: str
    seed: int = 0
    capability: int = 0
    brief: bool = False

    @cached_property
    def measuring(self) -> Settings:
        """The settings by which answers are asked for and scores made."""
        suite = EMBEDDED if self.set_name == WORLD else {}
        return default_settings(MEASURING, suite, {"capability.limit": self.capability or None})

    @cached_property
    def base(self) -> Base:
        """What the untouched model says; asked when it is first needed."""
        return ask_base(self.loaded, self.sample, self.measuring, bool(self.capability))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What a line is of, by names and digests."""
        return {
            "model": self.model_name,
            "set": self.set_name,
            "edits": len(self.sample.edits),
            "seed": self.seed,
            "rows": digest_edits(self.sample.edits)[:12],
            "tuning": digest_edits(self.sample.tuning)[:12],
            "capability": self.capability,
            "brief": self.brief,
        }

    def settings(self, *values: Values) -> Settings:
        """The settings of an edit run, later values over earlier ones."""
        return default_settings({"model.path": self.model, "training.seed": self.seed}, COMMON, *values)

    def place(self, rival: Rival) -> Location | None:
        """Where a rival writes; None where that is to be searched for, or it writes nothing."""
        if rival.place is None:
            return None
        return locate(self.loaded.model, rival.place.location(len(decoder_blocks(self.loaded.model)[1])))

    def find(self, **wanted: Any) -> Line | None:
        """The line with these values that is of this model and sample, if the file has one."""
        wanted |= {name: self.identity[name] for name in SHARED[wanted["kind"]]} | {"version": VERSION}
        return next((line for line in read_lines(self.output) if line.items() >= wanted.items()), None)

    def note(self, line: Mapping[str, Any]) -> Line:
        """Append a line to the file, behind one that a killed run left half."""
        whole = {"version": VERSION, **self.identity, **line}
        self.output.parent.mkdir(parents=True, exist_ok=True)
        held = self.output.read_bytes() if self.output.exists() else b""
        with self.output.open("a", encoding="utf-8") as file:
            file.write(("\n" if held and not held.endswith(b"\n") else "") + json.dumps(whole) + "\n")
        return whole


def default_settings(*values: Values) -> Settings:
    """The defaults but for these values by dotted name, whatever `params.yaml` says."""
    sections: dict[str, Any] = {}
    for own in values:
        sections = with_overrides(sections, own)
    return build_settings(sections)


def read_lines(path: Path) -> list[Line]:
    """The lines of a file of results, none where there is no file; one that a killed run left half is passed over."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def value(line: Line, name: str) -> float | None:
    """A measure's value; None where the line has none."""
    found = line.get("measures", {}).get(name)
    return found["value"] if found else None
