"""The rivals: name, method, settings, place and what of their settings is tuned; a row of the table each.

A place is told by its share of the model's depth, as the methods' authors chose theirs on models of 32 layers. A rival
with several `choices` takes the one that does best on the tuning rows, which are others than those reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, Literal

from factpatch.settings.training import PAPER

Values = Mapping[str, Any]  # settings by dotted name


@dataclass(frozen=True)
class Place:
    """A module of each layer from a share of the model's depth up to another, `last` included; of one layer without."""

    first: float
    module: str
    last: float | None = None

    def location(self, layers: int) -> str:
        """The location in a model of so many layers."""
        first, last = (min(int(share * layers), layers - 1) for share in (self.first, self.last or self.first))
        return f"{first}:{self.module}" if last == first else f"{first}-{last}:{self.module}"


@dataclass(frozen=True)
class Rival:
    """One way to make a model give new answers.

    Attributes:
        name: as `--only` takes it. `title` is what the table says.
        values: settings that differ from the defaults.
        place: where it writes; None searches as `factpatch run` does, which takes minutes.
        choices: further settings, of which the best is chosen.
        kind: `patch` writes into the model, `base` changes nothing, `retrieval` puts the nearest edit in front.
    """

    name: str
    title: str
    values: Values = field(default_factory=dict)
    place: Place | None = None
    choices: tuple[Values, ...] = ({},)
    kind: Literal["base", "patch", "retrieval"] = "patch"


def steps(*values: float | str) -> tuple[Values, ...]:
    """A choice of step sizes."""
    return tuple({"training.learning_rate": value} for value in values)


EDITS_ALONE: Values = {
    "training.preservation.neighbours": 0,
    "training.augmentation.wordings": 0,
    "training.augmentation.both_forms": False,
    "training.whitening": None,
}
# The paper's recipe key by key, as `recipe: paper` admits no other step size and batch:
PAPER_RECIPE: Values = {
    f"training.{name}": asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    for name, value in PAPER.items()
}
PAPER_CHOICES: tuple[Values, ...] = (  # batches of 100 make few steps where rows are few
    {"training.learning_rate": 5e-4},
    {"training.learning_rate": "auto"},
    {"training.learning_rate": "auto", "training.batch_size": None},
)
# As practitioners fine-tune: a few epochs of decaying steps, no further rows.
FINE_TUNING: Values = {**EDITS_ALONE, "training.revisit": False, "training.epochs": 8}
CRISPEDIT: Values = {"training.method": "crispedit", "training.batch_size": 32, "training.epochs": 25}  # its authors'
CHUNKS: Values = {"training.options.chunk": 100}

ONE_DOWN = Place(22 / 32, "down")  # the paper's, on Llama-3-8B
LATE_DOWN = Place(0.734, "down", 0.87)  # the first that the search tries
FIVE_DOWN = Place(19 / 32, "down", 23 / 32)  # CrispEdit's
EARLY_DOWN = Place(4 / 32, "down", 8 / 32)  # MEMIT's and AlphaEdit's
LATE_GATE_UP = Place(0.64, "gate+up", 0.92)  # UltraEdit's
ALL_LINEAR = Place(0.0, "", 1.0)

ROSTER: tuple[Rival, ...] = (
    Rival("base", "untouched model", kind="base"),
    Rival("plain", "breadth-first, one matrix, nothing kept", EDITS_ALONE, ONE_DOWN, steps("auto", 2e-3)),
    Rival("whitened", "the same, whitened", {**EDITS_ALONE, "training.whitening": 0.1}, ONE_DOWN),
    Rival("whitened-span", "the same, whitened, several layers", {**EDITS_ALONE, "training.whitening": 0.1}, LATE_DOWN),
    Rival("ours", "factpatch, default settings", place=LATE_DOWN),
    Rival("paper", "LocFT-BF", PAPER_RECIPE, ONE_DOWN, PAPER_CHOICES),
    Rival(
        "paper-token",
        "LocFT-BF, loss averaged over tokens",
        {**PAPER_RECIPE, "training.loss_average": "token"},
        ONE_DOWN,
        PAPER_CHOICES,
    ),
    Rival(
        "lora",
        "LoRA, rank 16, all linear layers",
        {**FINE_TUNING, "training.rank": 16},
        ALL_LINEAR,
        steps(1e-3, 2e-3),
    ),
    Rival("full", "full fine-tuning", FINE_TUNING, ALL_LINEAR, steps(5e-5, 2e-4)),
    Rival(
        "ft-m",
        "FT-M, depth-first",
        {**EDITS_ALONE, "training.method": "depth-first", "training.epochs": 25},
        ONE_DOWN,
        steps(5e-4, "auto"),
    ),
    Rival("crispedit", "CrispEdit", CRISPEDIT, FIVE_DOWN, steps(5e-4, "auto")),
    Rival(
        "crispedit-chunks",
        "CrispEdit, chunks of 100",
        {**CRISPEDIT, **CHUNKS},
        FIVE_DOWN,
        steps(5e-4, "auto"),
    ),
    Rival(
        "ultraedit",
        "UltraEdit, chunks of 100",
        {"training.method": "ultraedit", **CHUNKS},
        LATE_GATE_UP,
        tuple({"training.options.lr": value} for value in (1e-5, 1e-4, 3e-4)),
    ),
    Rival("memit", "MEMIT, one batch", {"training.method": "memit"}, EARLY_DOWN),
    Rival("memit-chunks", "MEMIT, chunks of 100", {"training.method": "memit", **CHUNKS}, EARLY_DOWN),
    Rival("alphaedit", "AlphaEdit, chunks of 100", {"training.method": "alphaedit", **CHUNKS}, EARLY_DOWN),
    Rival("retrieval", "nearest edit put before the prompt (no patch)", kind="retrieval"),
)


def chosen(roster: tuple[Rival, ...], names: list[str] | None) -> list[Rival]:
    """The rivals of these names, in the roster's order; all where none is named. KeyError for an unknown name."""
    known = {rival.name: rival for rival in roster}
    wanted = {known[name].name for name in names or known}
    return [rival for rival in roster if rival.name in wanted]
