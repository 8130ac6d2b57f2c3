"""Settings of training: method, schedule, preservation, augmentation, and the paper's recipe."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, StrictBool, StrictInt
from pydantic.dataclasses import dataclass

from factpatch.errors import InputError
from factpatch.settings.methods import method_entry

SECTION = ConfigDict(extra="forbid")  # of every dataclass of settings


def as_number(value: Any) -> Any:
    """YAML 1.1 reads 3e-3 as text, which is a number here; and true is none."""
    if isinstance(value, bool):
        raise ValueError("a bool is no number")
    return value


Number = Annotated[float, BeforeValidator(as_number)]
NotNegative = Annotated[Number, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Amount = Annotated[StrictInt, Field(ge=0)]
Count = Annotated[StrictInt, Field(ge=1)]  # of things of which there must be one


@dataclass(frozen=True, config=SECTION)
class TrainingSettings:
    """How the located parameters are trained."""

    method: str = "breadth-first"  # depth-first is the baseline; other packages may bring more (docs/extending.md)
    recipe: Literal["own", "paper"] = "own"  # paper: that of LocFT-BF, which no key below may contradict (see PAPER)
    learning_rate: Literal["auto"] | Annotated[Number, Field(ge=1e-9, le=1)] = (
        "auto"  # Adam's step size; auto: a share of the trained matrices' own size
    )
    schedule: Literal["decay", "constant"] = "decay"  # of the step size: a short warm-up, then half a cosine to a tenth
    batch_size: Count | None = None  # rows a step; null: a twentieth of those an epoch visits, but 8 to 100
    micro_batch: Count | None = None  # rows a forward pass at most; halves by itself when memory runs out
    epochs: Count = 40  # passes over all edits at most (breadth-first), steps an edit at most (depth-first)
    revisit: StrictBool = True  # learnt edits are visited more rarely; end when a check finds all of them learnt
    confidence: Annotated[Number, Field(ge=0.5, le=0.9999)] = (
        0.9  # probability of every target token from which on an edit counts as learnt
    )
    stop_loss: NotNegative = 0.01  # without revisits: stop once an epoch's mean loss is below
    seed: StrictInt = 0  # of the order of edits
    resume: StrictBool = False  # continue a killed run from the checkpoint in its output folder
    checkpoint_seconds: NotNegative = 20.0  # between checkpoints; more where writing one takes long; 0: each step
    rank: Count | None = None  # train low-rank factors (LoRA) in place of the matrices; null: the matrices
    protect: str | None = None  # file of prompts whose present answers are kept (breadth-first only)
    neighbours: NotNegative = 5.0  # further prompts to keep for each edit: its kind of question about other subjects
    protect_ratio: NotNegative = 1.0  # preserved prompts an epoch visits for each row of an edit that it visits
    protect_least: Amount = 128  # preserved prompts an epoch visits at least, so that few edits are safe too
    keep: Literal["answers", "divergence"] = "divergence"  # what is kept: the greedy answers / the distribution (KL)
    keep_weight: NotNegative = 0.5  # of a preserved row's loss beside an edit's
    project: Literal["none", "soft", "hard"] = "none"  # turn updates away from directions that preserved prompts use
    project_share: Share = 0.1  # of those directions' variance that updates may reach
    wordings: Amount = 3  # further wordings trained for each edit: its question as other edits or `templates` put it
    templates: str | None = None  # file with lists of wordings that ask the same, "{}" standing for the subject
    prefixes: Amount = 0  # times that each edit is also trained after an unrelated sentence
    both_forms: StrictBool = False  # each edit is also trained in the other form: chat beside plain, plain beside chat
    adaptive: StrictBool = False  # `keep_weight` follows preserved prompts and wordings that are held out

    @property
    def step_size(self) -> float:
        """`learning_rate` as a number, once `factpatch.methods.learning_rate` has put one in place of `auto`."""
        assert not isinstance(self.learning_rate, str)
        return self.learning_rate

    def rows_a_step(self, visited: int) -> int:
        """Rows of a mini-batch where an epoch visits `visited`: small sets need steps more than large batches."""
        return self.batch_size or min(100, max(8, visited // 20))


MEANS = ("resume", "checkpoint_seconds", "micro_batch")  # they change no result; the last one, but for rounding


def decisive(training: TrainingSettings) -> dict[str, Any]:
    """The settings that a result depends on, as plain values."""
    return {name: value for name, value in asdict(training).items() if name not in MEANS}


PAPER: dict[str, Any] = {  # the recipe of LocFT-BF, arXiv 2509.22072
    "method": "breadth-first",
    "learning_rate": 5e-4,
    "schedule": "constant",
    "batch_size": 100,
    "epochs": 25,
    "revisit": False,
    "stop_loss": 0.01,
    "rank": None,
    "protect": None,
    "neighbours": 0.0,
    "project": "none",
    "wordings": 0,
    "templates": None,
    "prefixes": 0,
    "both_forms": False,
    "adaptive": False,
}


def check_strengths(training: TrainingSettings) -> None:
    """InputError for an unknown method, and for choices that contradict each other."""
    method_entry(training.method)
    visited = training.keep_weight and (training.protect_ratio or training.protect_least)
    if (training.protect or training.neighbours) and not visited and training.project == "none":
        name = "keep_weight" if not training.keep_weight else "protect_ratio"
        raise InputError(
            f"training.protect and training.neighbours ask to keep prompts, but training.{name} is 0 and nothing is "
            f"projected, so nothing would; raise {name}, or set protect to null and neighbours to 0"
        )
    if training.rank is not None and training.project != "none":
        raise InputError(
            "training.rank trains low-rank factors, whose steps training.project cannot turn; set rank to null or "
            "project to none"
        )
    if training.templates is not None and not training.wordings:
        raise InputError("training.templates names wordings, but training.wordings is 0; raise it, or set no templates")
