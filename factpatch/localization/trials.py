"""A trial: the sample is edited at one place, from activations that all places share, and measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import fmean

from factpatch.errors import RefusedError
from factpatch.evaluation.generation import verify
from factpatch.files import GIB
from factpatch.frozen_trunk import Rows
from factpatch.frozen_trunk.activations import Activations
from factpatch.frozen_trunk.capture import capture
from factpatch.frozen_trunk.opening import proven_plan
from factpatch.frozen_trunk.plan import Plan, kept_bytes
from factpatch.frozen_trunk.replay import head_side
from factpatch.localization.trial_set import ANSWER_TOKENS, TrialSet
from factpatch.methods.base import EditJob
from factpatch.methods.breadth_first.method import BreadthFirst
from factpatch.methods.breadth_first.training import breadth_first
from factpatch.methods.reading_moments import reading_moments
from factpatch.methods.whitening import MOMENT_TOKENS, whitened, whitening_at
from factpatch.models.loading import LoadedModel, preserved, write_values
from factpatch.models.locations import Location
from factpatch.models.placement import held_from
from factpatch.preflight.workload import shape_of
from factpatch.settings.config import Settings, TrainingSettings

TRIAL_EPOCHS = 12  # of a whole run at most: enough to tell places apart, and a third of those that a release may take
SHORT_RUN_PART = 4  # a short run has a quarter of the epochs
SMALLEST_BATCH = 8  # rows; a batch shrinks with the sample, so that an epoch has about as many steps as the real one

TrialProgress = Callable[[float, str], None]  # share of the trial that is done, a word on it


@dataclass(frozen=True)
class Trial:
    """One place tried, and what it showed.

    Attributes:
        whole: a whole run, not a short one.
        right: for each question of the trial set, whether its answer was proven.
        epochs, visits: of the training; rows that went forward and backward.
        operations: multiplications and additions of the training, as the shapes of the matrices say.
        seconds: training and measuring.
        failure: why there is no result; empty if there is one.
    """

    location: Location
    whole: bool
    right: tuple[bool, ...]
    epochs: int
    visits: int
    operations: int
    seconds: float
    failure: str = ""


class SharedTrunk:
    """The trial set's rows at many places: one pass through the model serves all, and each layer's hidden states are
    kept once. Where a place cannot be cut out, its rows run through the whole model."""

    def __init__(self, loaded: LoadedModel, trial_set: TrialSet, settings: Settings) -> None:
        self.loaded, self.trial_set, self._settings = loaded, trial_set, settings.trunk
        self._whitens = settings.training.damping is not None
        self._rows = list(dict.fromkeys(trial_set.rows))
        place = {row: index for index, row in enumerate(self._rows)}
        self._training = [place[row] for row in trial_set.training]
        self._asked = [place[question.row] for question in trial_set.questions]
        self._plans: dict[Location, Plan | None] = {}
        self._kept: dict[Location, Activations] = {}

    def prepare(self, locations: Sequence[Location]) -> None:
        """Make the first of the places ready, and as many of the others as fit `trunk.memory_gb`, by one pass."""
        if not locations or locations[0] in self._plans:
            return
        self._plans.clear()
        self._kept.clear()
        places: dict[object, int] = {}
        for location in locations:
            plan = proven_plan(self.loaded, location, self._rows) if self._settings.keep else None
            wanted: dict[object, int] = {}
            if plan is not None:
                sizes = kept_bytes(self.loaded.model, plan, self._rows)
                wanted = {plan.place(site): size for site, size in sizes.items()}
            if self._plans and sum((places | wanted).values()) > self._settings.memory_gb * GIB:
                break
            places |= wanted
            self._plans[location] = plan
        self._keep_moments(list(self._plans))
        planned = {location: plan for location, plan in self._plans.items() if plan is not None}
        if planned:
            found = capture(self.loaded, list(planned.values()), self._rows)
            self._kept = dict(zip(planned, found, strict=True))

    def _keep_moments(self, locations: Sequence[Location]) -> None:
        """Have what whitening needs at these places on disk, by one pass for all."""
        names = whitened(self.loaded.model, locations) if self._whitens else ()
        if names and self._settings.folder is not None:
            reading_moments(self.loaded, names, self._settings, MOMENT_TOKENS)

    @contextmanager
    def open(self, location: Location) -> Iterator[tuple[Rows, Rows]]:
        """Training rows and questions, as `factpatch.frozen_trunk.open_rows` would give them."""
        self.prepare([location])
        plan = self._plans[location]
        training, asked = ([self._rows[index] for index in part] for part in (self._training, self._asked))
        if plan is None:
            yield Rows(self.loaded, training), Rows(self.loaded, asked)
            return
        kept = self._kept[location]
        with held_from(self.loaded.model, plan.layer), head_side(self.loaded.model, plan) as run:
            yield (
                Rows(self.loaded, training, plan, kept.select(self._training), run),
                Rows(self.loaded, asked, plan, kept.select(self._asked), run),
            )


def run_trial(
    trunk: SharedTrunk, location: Location, settings: Settings, whole: bool, progress: TrialProgress | None = None
) -> Trial:
    """Edit the sample at one place and measure; the model is left as found, bit for bit.

    A run whose numbers break is a result too: nothing is right then. `progress` may raise to cut a trial short.
    """
    start = time.perf_counter()
    loaded, trial_set = trunk.loaded, trunk.trial_set
    training = trial_settings(settings, trial_set, whole)

    def report(done: int, total: int, loss: float) -> None:
        if progress:
            progress(done / total, f"loss {loss:.3f}")

    trunk.prepare([location])
    whitening = whitening_at(loaded, location, training.damping, settings.trunk)
    job = EditJob(loaded, location, trial_set.training_rows, training, progress=report)
    with trunk.open(location) as (rows, asked):
        try:
            result = breadth_first(job, rows, whitening=whitening)
        except RefusedError as error:
            seconds = round(time.perf_counter() - start, 3)
            return Trial(location, whole, (False,) * len(asked), 0, 0, 0, seconds, str(error))
        with preserved(loaded.model, location.parameters):
            write_values(loaded.model, result.values)
            verdicts = verify(
                loaded, asked, min(ANSWER_TOKENS, settings.evaluation.max_new_tokens), settings.evaluation.batch_size
            )
    right = tuple(verdict.answer is not None for verdict in verdicts)
    operations = result.visits * row_operations(loaded, location, rows)
    seconds = round(time.perf_counter() - start, 3)
    return Trial(location, whole, right, len(result.losses), result.visits, operations, seconds)


def trial_settings(settings: Settings, trial_set: TrialSet, whole: bool) -> TrainingSettings:
    """Training of a trial: breadth-first as configured, in batches as much smaller as the sample is than the edits."""
    training = settings.training
    epochs = min(training.epochs, TRIAL_EPOCHS)
    return replace(
        training,
        method=BreadthFirst.name,
        recipe="own",
        options={},
        batch_size=training.batch_size and max(SMALLEST_BATCH, round(training.batch_size * trial_set.share)),
        epochs=epochs if whole else max(1, epochs // SHORT_RUN_PART),
    )


def row_operations(loaded: LoadedModel, location: Location, rows: Rows) -> int:
    """Multiplications and additions of one row's pass forward and backward from the place up."""
    if not len(rows):
        return 0
    shape = shape_of(loaded.model, location, rows.plan is not None)
    targets = fmean(len(row.ids) - row.prompt_length for row in rows.rows)
    return round(2 * (fmean(rows.lengths) * (shape.head + shape.back) + 2 * targets * shape.width * shape.vocabulary))
