"""What a training method is: the protocol that each one fulfils, what a run gives it and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from factpatch.edits.request import EditRequest
from factpatch.progress import Progress
from factpatch.settings.config import TrainingSettings, TrunkSettings
from factpatch.settings.methods import own_settings

if TYPE_CHECKING:  # the command line asks what a method can do without torch
    import torch

    from factpatch.frozen_trunk import Rows
    from factpatch.methods.checkpoint import CheckpointPolicy
    from factpatch.methods.workload import ModelShape, Workload
    from factpatch.models.encoding import Encoded
    from factpatch.models.loading import LoadedModel
    from factpatch.models.locations import Location
    from factpatch.models.low_rank import Factors

TrainingProgress = Callable[[int, int, float], None]  # units done, units in all at most, loss


@dataclass(frozen=True)
class Abilities:
    """What a method can do, and what it needs; a run asks these flags, never a method's name.

    Attributes:
        warm_start: it can start from an earlier patch's values, and verifies first what they hold.
        resume: it keeps its state in a checkpoint, and continues a killed run from there.
        several_layers: it can write into matrices of more than one layer.
        needs_subject: every edit must say what it is about.
        augmented: it trains edits in further wordings.
        preserved: it trains the model to keep answering preserved prompts as before.
    """

    warm_start: bool = False
    resume: bool = False
    several_layers: bool = False
    needs_subject: bool = False
    augmented: bool = False
    preserved: bool = False


@dataclass(frozen=True)
class TrainingRows:
    """Encoded rows by their kind, which is also their order in training.

    Attributes:
        edits: the edits' own prompts and targets, a row for each edit.
        augmented: edits in further wordings.
        preserved: prompts with the base model's own answers.
    """

    edits: tuple[Encoded, ...] = ()
    augmented: tuple[Encoded, ...] = ()
    preserved: tuple[Encoded, ...] = ()

    @property
    def all(self) -> tuple[Encoded, ...]:
        """Every row, kind by kind."""
        return self.edits + self.augmented + self.preserved


@dataclass(frozen=True)
class EditJob:
    """One edit run, as a method gets it.

    Attributes:
        loaded: the base model; the method leaves it as found.
        location: where to write.
        rows: what to train on.
        training: the method's own settings, of its `settings_type`.
        edits: the requests behind `rows.edits`, in the same order.
        trunk: what is kept of the frozen layers.
        progress: told about epochs or edits done.
        trunk_progress: told about rows that went through the frozen layers.
        checkpoint: where to keep the state; None for a run that starts anew when it was killed.
        warm_start: values of the located tensors to start from; None for the model's own.
        chat_template: whether the rows' prompts went through the chat template.
    """

    loaded: LoadedModel
    location: Location
    rows: TrainingRows
    training: Any
    edits: Sequence[EditRequest] = ()
    trunk: TrunkSettings = field(default_factory=TrunkSettings)
    progress: TrainingProgress | None = None
    trunk_progress: Progress | None = None
    checkpoint: CheckpointPolicy | None = None
    warm_start: Mapping[str, torch.Tensor] | None = None
    chat_template: bool = False

    @contextmanager
    def opened(self) -> Iterator[Rows]:
        """All rows with their frozen layers run once, ready for training while the block lasts."""
        from factpatch.frozen_trunk import open_rows

        with open_rows(self.loaded, self.location, self.rows.all, self.trunk, self.trunk_progress) as rows:
            yield rows


@dataclass(frozen=True)
class TrainingResult:
    """New values of the located tensors by name, and how training went.

    Attributes:
        values: rounded to what the model's files can hold, as `LoadedModel.stored.rounded` does.
        losses: the mean loss of every epoch (breadth-first), or the last loss of every edit (depth-first).
        steps: of the optimizer.
        visits: rows that went forward and backward, preserved ones included.
        unsure: indices of the edits that were not answered right with margin at the last check; None if unchecked.
        engine: `packed`, `padding-free`, `padded` (head side alone) or `whole` (the whole model in every step).
        factors: of a low-rank run, A and B by name: the values are those that it began with plus B A.
    """

    values: dict[str, torch.Tensor]
    losses: tuple[float, ...]
    steps: int
    visits: int
    unsure: tuple[int, ...] | None
    engine: str
    factors: dict[str, Factors] = field(default_factory=dict)


class EditMethod(Protocol):
    """A way to write edits into located tensors.

    One that cannot use every location has a function `refuse(model, location)` too, which raises InputError in a line
    that says what it can use; the model may be on torch's meta device, without values.

    Attributes:
        name: as `training.method` says it.
        settings_type: a dataclass; its fields that `training` has too are taken from there, others from
            `training.options`.
        abilities: what the method can do.
    """

    name: str
    settings_type: type
    abilities: Abilities

    def estimate(self, training: Any, rows: TrainingRows, shape: ModelShape) -> Workload:
        """How much work an epoch over the rows is, from their lengths and the model's sizes alone."""
        ...

    def run(self, job: EditJob) -> TrainingResult:
        """Train; the model is left bit for bit as found, and the result holds the new values."""
        ...


def settings_of(method: EditMethod, training: TrainingSettings) -> Any:
    """The method's own settings, from the section `training` and its `options`."""
    return own_settings(method.settings_type, training)
