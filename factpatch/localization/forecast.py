"""How long trials will take: from their work and this machine's speed, corrected by the trials that are done."""

from __future__ import annotations

from collections.abc import Sequence

from factpatch.frozen_trunk.plan import Layout
from factpatch.localization.trial_set import TrialSet
from factpatch.localization.trials import Trial, trial_settings
from factpatch.methods.breadth_first.estimate import workload
from factpatch.methods.workload import Workload
from factpatch.models.loading import LoadedModel
from factpatch.models.locations import Location
from factpatch.preflight.durations import MachineSpeed
from factpatch.preflight.machine import matrix_rate, memory_rate
from factpatch.preflight.workload import shape_of, whole_passes
from factpatch.settings.config import Settings

SLACK = 2
SET_UP = 6  # passes of a few rows through the whole model that prove where it can be cut


class Forecast:
    """Estimated seconds of trials of one trial set."""

    def __init__(self, loaded: LoadedModel, trial_set: TrialSet, settings: Settings) -> None:
        self._loaded, self._trial_set, self._settings = loaded, trial_set, settings
        self._pace: MachineSpeed | None = None
        self._expected = self._taken = 0.0
        self._work: dict[Layout, Workload] = {}

    def seconds(self, location: Location, whole: bool) -> float:
        """Estimated seconds of a trial to come at this place, whole or short, if it needs all of its epochs."""
        return (
            self._raw(location, trial_settings(self._settings, self._trial_set, whole).epochs, set_up=True)
            * self._ratio
        )

    def note(self, trial: Trial) -> None:
        """Correct later forecasts by the seconds that a trial took."""
        self._expected += self._raw(trial.location, trial.epochs, set_up=False)
        self._taken += trial.seconds

    def fitting(self, locations: Sequence[Location], whole: bool, seconds: float) -> list[Location]:
        """Those that there is time for, the first ones first. Where a place takes too long, a later one may still fit;
        where none does, the first that takes no more than SLACK times as long: no forecast is exact."""
        chosen: list[Location] = []
        left = seconds
        for location in locations:
            each = self.seconds(location, whole)
            if each <= left:
                chosen.append(location)
                left -= each
        return chosen or [location for location in locations if self.seconds(location, whole) <= SLACK * seconds][:1]

    @property
    def _ratio(self) -> float:
        return self._taken / self._expected if self._expected else 1.0

    def _raw(self, location: Location, epochs: int, set_up: bool) -> float:
        trial_set, training = self._trial_set, trial_settings(self._settings, self._trial_set, True)
        model, device = self._loaded.model, self._loaded.model.device
        if self._pace is None:
            self._pace = MachineSpeed(matrix_rate(device, model.dtype), memory_rate(device), model.dtype.itemsize)
        shape = shape_of(model, location, self._settings.trunk.keep)
        if shape.layout not in self._work:
            self._work[shape.layout] = workload(training, trial_set.training_rows, shape)
        work = self._work[shape.layout]
        seconds = epochs * self._pace.epoch(work, shape)
        asked = [question.row for question in trial_set.questions]
        seconds += self._pace.forward(whole_passes(asked), shape)
        return seconds + (self._pace.forward(whole_passes(trial_set.training[:1] * SET_UP), shape) if set_up else 0.0)
