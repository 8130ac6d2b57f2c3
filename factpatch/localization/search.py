"""The search for a place: known places, then those that a signal ranks first, get short runs, the best whole ones; or a
grid gives whole runs to all."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from factpatch.edits.request import EditRequest
from factpatch.errors import InputError
from factpatch.localization.forecast import Forecast
from factpatch.localization.places import candidate_locations, first_places, known_places
from factpatch.localization.record import judged, record
from factpatch.localization.score import Scorer
from factpatch.localization.signals import Ranked, rank_places
from factpatch.localization.store import ChoiceStore, Record, TrialStore, base_digest
from factpatch.localization.trial_set import TrialSet, make_trial_set
from factpatch.localization.trials import SharedTrunk, Trial, run_trial
from factpatch.models.loading import LoadedModel
from factpatch.models.locations import Location, locate
from factpatch.models.placement import stream_of
from factpatch.progress import Report
from factpatch.settings.config import LEAST_SAMPLE, Settings

TRIALS_PER_WHOLE_RUN = 4  # one trial in four is a whole run
MANY_EDITS = 200  # edits from which on a search takes all of its minutes
EDITS_CHECKED = 16  # edits that an earlier choice is checked on

Spread = Callable[[Path, Sequence[str]], None]  # has places tried elsewhere: the trials' folder, their names


class OutOfTime(Exception):
    """The budget's minutes are over."""


def localize(
    loaded: LoadedModel,
    edits: Sequence[EditRequest],
    settings: Settings,
    progress: Report | None = None,
    spread: Spread | None = None,
) -> Record:
    """Choose the place for these edits on this model; the model is left as found, bit for bit.

    The value is that of `localize.json`, without its seconds. What was found before is not searched again, and edits of
    the same kind keep an earlier choice, after a check. `spread` is called with the folder of a grid's trials and the
    names of the places to try, and has other processes try them.
    Raises InputError for a budget that allows no trial, a module that no layer has, or a grid over too few edits.
    """
    own, start = settings.localization, time.monotonic()
    candidates = candidate_locations(loaded.model, own)
    with TemporaryDirectory() as nowhere:
        root = Path(own.cache or nowhere)
        base = base_digest(loaded)
        choices = ChoiceStore(root, base, edits, settings)
        if known := choices.exact(own.reuse):
            return known
        if stream_of(loaded.model):
            raise InputError(
                "a location is searched with the whole model in memory, and this one is streamed; name "
                "localization.location, such as one that a smaller model of the family was edited at"
            )
        size = min(own.sample, len(edits))
        earlier = choices.similar() if own.reuse and own.method == "auto" else None
        if earlier:
            size = min(EDITS_CHECKED, size)
        elif own.method == "grid" and size < LEAST_SAMPLE:
            raise InputError(
                f"a grid needs at least {LEAST_SAMPLE} edits to tell places apart, there are {size}; use method auto, "
                "or name localization.location"
            )

        def tell(note: str) -> None:
            if progress:
                total = round(60 * minutes(own.budget_minutes, len(edits)))
                progress(round(time.monotonic() - start), total, note)

        usual = first_places(loaded.model, candidates)
        if own.method == "auto" and not earlier and size < own.sample and usual:
            return record("auto", usual[0], too_few(size, own.sample), size, (), (), known_places(loaded.model), ())

        trial_set = make_trial_set(loaded, edits, settings, size, tell)
        search = Search(loaded, trial_set, settings, TrialStore.start(root, base, trial_set, settings), start, progress)
        if earlier:
            found = search.check(earlier)
        elif own.method == "grid":
            found = search.grid(candidates, spread)
        else:
            found = search.auto(candidates)
        if not search.cut_short:  # else another run goes on from the trials
            choices.keep(found, searched=found["choice"] is not None and not earlier)
        return found


def too_few(edits: int, sample: int) -> str:
    """Why no place is tried on so few edits."""
    return (
        f"{edits} edits are too few to tell places apart (localization.sample is {sample}): the first in order is taken"
    )


def minutes(budget: float, edits: int) -> float:
    """The minutes that a search takes: the whole budget for MANY_EDITS, less for fewer, but a third at least."""
    return budget * min(1.0, 1 / 3 + edits / (1.5 * MANY_EDITS))


@dataclass
class Search:
    """A search over one trial set: its trials, old and new, and the time that is left."""

    loaded: LoadedModel
    trial_set: TrialSet
    settings: Settings
    store: TrialStore
    start: float
    progress: Report | None
    trials: list[Trial] = field(default_factory=list)  # in the order of the trials
    cut_short: bool = False  # a trial, by the budget's minutes
    left_out: int = 0  # places that there was no time for
    planned: float = 0.0  # seconds of the trials to come
    deadline: float = math.inf  # on the clock

    def __post_init__(self) -> None:
        self.scorer = Scorer(self.trial_set, self.settings.localization.weights)
        self.trunk = SharedTrunk(self.loaded, self.trial_set, self.settings)
        self.forecast = Forecast(self.loaded, self.trial_set, self.settings)

    def auto(self, candidates: Sequence[Location]) -> Record:
        """Try known places, then usual ones, then those that a signal ranks first, by successive halving within the
        budget; where there is no time for that, by whole runs of the first places, as many as fit."""
        own, size = self.settings.localization, self.trial_set.edits
        allowed = own.budget_edits // size
        allowed = min(allowed, max(1, own.budget_edits // own.sample))  # of few edits no more trials than of many
        if not allowed and len(candidates) > 1:
            raise InputError(
                f"localization.budget_edits is {own.budget_edits}, but one trial takes {size} edits; raise it, "
                "or lower localization.sample"
            )
        self.deadline = self.start + 60 * minutes(own.budget_minutes, round(size / self.trial_set.share))
        self.planned = self.deadline - time.monotonic()
        known = known_places(self.loaded.model)
        self._tell(0.0, f"a signal of {len(candidates)} places")
        ranking = rank_places(self.loaded, self.trial_set, candidates)
        ranked = [place.location for place in ranking]
        places = list(dict.fromkeys([*first_places(self.loaded.model, candidates), *ranked]))
        if size < own.sample or len(places) == 1:
            why = "the only candidate" if len(places) == 1 else too_few(size, own.sample)
            return record("auto", places[0], why, size, (), ranking, known, self.trial_set.notes)
        finals = max(1, allowed // TRIALS_PER_WHOLE_RUN)
        short = places[: allowed - finals]
        try:
            if len(short) > finals and self._in_time(short, finals):
                self._try(short, whole=False)
                places = [place.trial.location for place in self.scorer.rank(self.trials)][:finals]
            self._try(places[:allowed], whole=True)
        except OutOfTime:
            self.cut_short = True
        if not self.trials:
            why = f"no place could be tried within localization.budget_minutes ({own.budget_minutes:g}), so "
            why += "the first in order is taken"
            return record("auto", places[0], why, size, (), ranking, known, self.trial_set.notes)
        return self._judged("auto", ranking)

    def grid(self, candidates: Sequence[Location], spread: Spread | None) -> Record:
        """A whole run at every place."""
        missing = [place.name for place in candidates if self.store.read(self.loaded, place.name, True) is None]
        if spread and missing:
            spread(self.store.folder, missing)
        self._try(candidates, whole=True)
        return self._judged("grid", ())

    def check(self, earlier: Record) -> Record:
        """Keep an earlier choice, and say so if a few of the new edits fit it worse than those that it was made for."""
        location = locate(self.loaded.model, earlier["location"]["name"])
        self._try([location], whole=True)
        now, then = self.scorer.score(self.trials[0]), earlier["choice"]
        shown = f"{now.score:.3f} ± {now.margin:.3f} on {self.trial_set.edits} of these edits"
        notes = list(self.trial_set.notes)
        if then["score"] - now.score > math.hypot(then["margin"], now.margin):
            notes.append(
                f"{location.name}, chosen earlier at {then['score']:.3f} ± {then['margin']:.3f}, reaches only {shown}; "
                "set localization.reuse to false to search anew"
            )
        reason = f"chosen earlier for edits of the same kind; it scores {shown}, {then['score']:.3f} then"
        return record("reused", location, reason, self.trial_set.edits, [now], notes=notes)

    def _judged(self, method: str, ranking: Sequence[Ranked]) -> Record:
        notes = list(self.trial_set.notes)
        if self.left_out or self.cut_short:
            budget = f"localization.budget_minutes ({self.settings.localization.budget_minutes:g})"
            notes.append(f"{budget} left time for {len(self.trials)} trials, {self.left_out} fewer than planned")
        known = known_places(self.loaded.model)
        return judged(method, self.scorer, self.trials, self.trial_set.edits, ranking, known, notes)

    def _in_time(self, short: Sequence[Location], finals: int) -> bool:
        """Is there time for these short runs, and for as many whole ones?"""
        each = sorted(self.forecast.seconds(place, True) for place in short)
        needed = sum(self.forecast.seconds(place, False) for place in short) + sum(each[-finals:])
        return needed <= self.deadline - time.monotonic()

    def _try(self, locations: Sequence[Location], whole: bool) -> None:
        """Those that there is time for; OutOfTime where one takes longer than all the time there is."""
        found = {place: self.store.read(self.loaded, place.name, whole) for place in locations}
        missing = [place for place in locations if found[place] is None]
        chosen = self.forecast.fitting(missing, whole, self.deadline - time.monotonic())
        for location in locations:
            trial = found[location]
            if trial is None:
                spare = self.deadline - time.monotonic()
                if location not in chosen or (self.trials and self.forecast.seconds(location, whole) > spare):
                    self.left_out += 1
                    continue
                rest = chosen[chosen.index(location) :]
                self.planned = sum(self.forecast.seconds(place, whole) for place in rest)
                self.trunk.prepare(rest)
                trial = run_trial(self.trunk, location, self.settings, whole, self._trial_progress(location, whole))
                self.forecast.note(trial)
                self.store.write(trial)
            self.trials.append(trial)

    def _trial_progress(self, location: Location, whole: bool) -> Callable[[float, str], None]:
        each = self.forecast.seconds(location, whole)

        def report(share: float, note: str) -> None:
            if time.monotonic() > self.deadline:
                raise OutOfTime
            self._tell(share * each, f"{location.name} {note}")

        return report

    def _tell(self, done: float, note: str) -> None:
        """Progress in seconds: those spent, of those and the planned ones left."""
        if self.progress:
            spent = time.monotonic() - self.start
            self.progress(round(spent), round(spent + max(0.0, self.planned - done)), note)
