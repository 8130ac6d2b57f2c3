"""Settings of training: method, schedule, preservation, augmentation, and the paper's recipe."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, StrictBool, StrictInt
from pydantic.dataclasses import dataclass

from factpatch.errors import InputError

SECTION = ConfigDict(extra="forbid")  # of every dataclass of settings


def _no_bool(value: Any) -> Any:
    """Pydantic would take true for 1."""
    if isinstance(value, bool):
        raise ValueError("a bool is no number")
    return value


Number = Annotated[float, BeforeValidator(_no_bool)]  # or a number as text, as YAML 1.1 reads 3e-3
NotNegative = Annotated[Number, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Amount = Annotated[StrictInt, Field(ge=0)]
Count = Annotated[StrictInt, Field(ge=1)]  # of things of which there must be one
StepSize = Annotated[Number, Field(ge=1e-9, le=1)]
Damping = Annotated[Number, Field(ge=1e-4, le=100)]
Confidence = Annotated[Number, Field(ge=0.5, le=0.9999)]  # from a half on, the token is the likeliest


@dataclass(frozen=True, config=SECTION)
class PreservationSettings:
    """Prompts that the model is trained to keep answering as the base model does."""

    prompts: str | None = None  # file of prompts whose present answers are preserved
    neighbours: NotNegative = 3.0  # further ones for each edit: its kind of question about other subjects
    ratio: NotNegative = 0.5  # that an epoch visits for each row of an edit that it visits
    least: Amount = 256  # that an epoch visits at least, so that few edits are safe too
    loss: Literal["kl", "cross-entropy"] = "kl"  # divergence from the base model's distribution / its greedy answers
    weight: NotNegative = 0.5  # of a preserved row's loss beside an edit's

    def __post_init__(self) -> None:
        if not (self.prompts or self.neighbours) or (self.weight and (self.ratio or self.least)):
            return
        name = "ratio" if self.weight else "weight"
        raise InputError(
            f"training.preservation asks to preserve prompts, but its {name} is 0, so nothing would; raise "
            f"training.preservation.{name}, or set prompts to null and neighbours to 0"
        )


@dataclass(frozen=True, config=SECTION)
class AugmentationSettings:
    """Further wordings that each edit is trained in beside its own."""

    wordings: Amount = 3  # its question as other edits or `templates` put it, or inside other text where these are few
    templates: str | None = None  # file with lists of wordings that ask the same, "{}" standing for the subject
    prefixes: Amount = 0  # times behind an unrelated sentence
    both_forms: StrictBool = True  # of a model with a chat template, in the other form too: chat beside plain

    def __post_init__(self) -> None:
        if self.templates is not None and not self.wordings:
            raise InputError(
                "training.augmentation.templates names wordings, but training.augmentation.wordings is 0; raise it, or "
                "set no templates"
            )


NO_PRESERVATION = PreservationSettings(neighbours=0)
NO_AUGMENTATION = AugmentationSettings(wordings=0, both_forms=False)


@dataclass(frozen=True, config=SECTION)
class TrainingSettings:
    """How the located parameters are trained."""

    method: str = "breadth-first"  # depth-first is the baseline; other packages may bring more (docs/extending.md)
    recipe: Literal["own", "paper"] = "own"  # paper: that of LocFT-BF, which no key below may contradict (see PAPER)
    learning_rate: Literal["auto"] | StepSize = "auto"  # Adam's; auto: a share of the trained matrices' own size
    schedule: Literal["decay", "constant"] = "decay"  # of the step size: a short warm-up, then half a cosine to a tenth
    batch_size: Count | None = None  # rows a step; null: a twentieth of those an epoch visits, but 8 to 100
    micro_batch: Count | None = None  # rows a forward pass at most; halves by itself when memory runs out
    epochs: Count = 24  # passes over all edits at most (breadth-first), steps an edit at most (depth-first)
    revisit: StrictBool = True  # learnt edits are visited more rarely; end when a check finds all of them learnt
    confidence: Confidence = 0.9  # probability of every target token from which on an edit counts as learnt
    stop_loss: NotNegative = 0.01  # without revisits: stop once an epoch's mean loss is below
    seed: StrictInt = 0  # of the order of edits
    resume: StrictBool = False  # continue a killed run from the checkpoint in its output folder
    checkpoint_seconds: NotNegative = 20.0  # between checkpoints; more where writing one takes long; 0: each step
    loss_average: Literal["edit", "token"] = "edit"  # over each edit's target tokens, then over edits / over all target
    # tokens of a mini-batch's edits, so that long targets weigh more
    whitening: Damping | None = 0.1  # directions that general text uses move less; the share of their mean variance
    # that is added to each; null, or with a rank: all move alike
    rank: Count | None = None  # train low-rank factors (LoRA) in place of the matrices; null: the matrices
    preservation: PreservationSettings = Field(default_factory=PreservationSettings)
    augmentation: AugmentationSettings = Field(default_factory=AugmentationSettings)
    options: dict[str, Any] = Field(default_factory=dict)  # of the method alone; docs/rivals.md has their names

    @property
    def damping(self) -> float | None:
        """Of whitening, which whole matrices alone are trained with; None without."""
        return self.whitening if self.rank is None else None

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


# The recipe of LocFT-BF, arXiv 2509.22072. It leaves `loss_average` open: edit as in its own code, token as in its port
# to LLaMA-Factory.
PAPER: dict[str, Any] = {
    "method": "breadth-first",
    "learning_rate": 5e-4,
    "schedule": "constant",
    "batch_size": 100,
    "epochs": 25,
    "revisit": False,
    "stop_loss": 0.01,
    "rank": None,
    "whitening": None,
    "preservation": NO_PRESERVATION,
    "augmentation": NO_AUGMENTATION,
}
