"""The public functions of the library, as `import factpatch` offers them; docs/api.md shows their use.

Nothing is written to disk but by `Patch.save`, unless the settings name folders for what may be kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from factpatch.editing import describe_run, edit_model
from factpatch.edits.accepted import with_made_probes
from factpatch.edits.given import EditRows, edits_from
from factpatch.edits.request import EditRequest, digest_edits
from factpatch.errors import InputError
from factpatch.evaluation.before_after import evaluate as evaluate_loaded
from factpatch.localization.search import localize as search
from factpatch.models.borrowing import borrow
from factpatch.models.loading import LoadedModel, load_model
from factpatch.models.locations import Location, locate
from factpatch.models.tokenization import known_rows
from factpatch.patches.patch import Patch, make_patch, read_patch
from factpatch.progress import Report, show_progress
from factpatch.settings.config import Settings
from factpatch.settings.given import settings_from
from factpatch.training_data.probes import make_probes

Model = str | Path | tuple[PreTrainedModel, PreTrainedTokenizerBase]
GivenSettings = Settings | Mapping[str, Any] | str | Path | None


class Scores(Mapping[str, dict[str, Any]]):
    """Metrics of a model by name, each with `value`, `n` and `ci95` (the 95 % interval).

    `reliability`, `generalization` and `locality` are shares in [0, 1]; a value that cannot be measured is None, with
    the `reason`. `definitions` of all metrics, and everything else that `evaluate.json` holds, are in `report`.

    Attributes:
        report: the value of `evaluate.json`.
        before: the same metrics of the base model, where a patch was measured; else None.
        edits: one row for each edit: what was asked, and what the model said before and after.
    """

    def __init__(self, report: Mapping[str, Any]) -> None:
        self.report = dict(report)
        self.before: Mapping[str, dict[str, Any]] | None = report["before"]
        self.edits: list[dict[str, Any]] = report["edits"]
        self._metrics = {name: report[name] for name in report["definitions"]}

    def __getitem__(self, name: str) -> dict[str, Any]:
        return self._metrics[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._metrics)

    def __len__(self) -> int:
        return len(self._metrics)

    def __repr__(self) -> str:
        measured = {name: metric for name, metric in self.items() if metric["value"] is not None}
        width = max(map(len, measured), default=0)
        lines = [f"  {name:<{width}}  {self._line(name, metric)}" for name, metric in measured.items()]
        return "\n".join([f"Scores of {len(self.edits)} edits", *lines])

    def _line(self, name: str, metric: Mapping[str, Any]) -> str:
        interval = f" ({metric['ci95'][0]:.3g} to {metric['ci95'][1]:.3g})" if metric.get("ci95") else ""
        known = (self.before or {}).get(name, {}).get("value")
        return f"{metric['value']:.3g}{interval}, n {metric['n']}" + ("" if known is None else f"; before {known:.3g}")


@dataclass(frozen=True)
class EditResult:
    """What an edit gave: a patch, its scores, where it writes, and notes on what was missing or left out."""

    patch: Patch
    scores: Scores
    location: Location
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        notes = [f"note: {note}" for note in self.notes]
        return "\n".join([f"EditResult at {self.location.name}", repr(self.patch), repr(self.scores), *notes])


@dataclass(frozen=True)
class Localization:
    """Where to write edits, and why; `report` is the value of `localize.json`, with every place that was tried."""

    location: Location
    reason: str
    report: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"Localization({self.location.name}: {self.reason})"


def edit(
    model: Model,
    edits: EditRows,
    settings: GivenSettings = None,
    *,
    location: str | Location | None = None,
    seed: int | None = None,
    progress: bool = False,
) -> EditResult:
    """Write facts into a causal language model, and measure what changed; the model itself is left as it was.

    The result's patch holds the new values: `result.patch.apply(model)` writes them into a loaded model, `undo` takes
    them out again, `save` keeps them. Edits that bring no paraphrases or locality probes get some to be measured by.

    Args:
        model: a model folder, GGUF file or hub name, or a pair of a transformers model and its tokenizer. A pair is
            used as it lies in memory, in its dtype and on its device.
        edits: what to write: (prompt, target) pairs, dicts of the fields of an edit file, `EditRequest`s, or the path
            of an edit file or folder.
        settings: a dict (`{"training": {"epochs": 8}}` or `{"training.epochs": 8}`), the path of a `params.yaml`, or
            `Settings`; what it does not say is as by default.
        location: where to write, such as "22:mlp.down_proj"; by default it is searched for.
        seed: of all that is drawn; by default that of the settings.
        progress: show a bar, or lines where there is no terminal, on standard error.

    Raises:
        InputError: a row, a setting, the model or the location cannot be used; the message names it and the fix.
        RefusedError: training broke down, or trained texts are held out for measuring.
    """
    with _opened(model, _settings(settings, location, seed)) as (loaded, chosen):
        requests, notes = _requests(loaded, edits, chosen, progress)
        place, told = _place(loaded, requests, chosen, progress)
        loaded.stored.refuse_unmapped(place.parameters)
        with _shown(f"edit {place.name}", progress) as report:
            run = edit_model(loaded, place, requests, chosen, progress=report)
        summary = {"digest": digest_edits(requests), "count": len(requests)}
        training = describe_run(loaded, place, requests, chosen, run)
        values, factors = run.training.values, run.training.factors
        patch = make_patch(loaded, place, values, chosen, summary, training, factors)
        with _shown("evaluate", progress) as report:
            scores = Scores(evaluate_loaded(loaded, requests, chosen, patch, report))
    return EditResult(patch, scores, place, (*notes, *told, *run.rows.notes))


def evaluate(
    model: Model,
    edits: EditRows,
    patch: Patch | str | Path | None = None,
    settings: GivenSettings = None,
    *,
    seed: int | None = None,
    progress: bool = False,
) -> Scores:
    """Measure by free generation what a model says to edits: before and after a patch, or as it is.

    Without a patch nothing is known of the model before, so `locality` is None. The model is left as it was.

    Args:
        model, edits, settings, seed, progress: as for `edit`.
        patch: a patch of this very model, or its folder.

    Raises:
        InputError: as for `edit`; and for a patch of another model, with the names of the tensors that differ.
    """
    found = read_patch(patch) if isinstance(patch, (str, Path)) else patch
    if not isinstance(found, Patch | None):
        raise InputError(f"the patch is a {type(found).__name__}; give a Patch (such as result.patch) or its folder")
    with _opened(model, _settings(settings, None, seed)) as (loaded, chosen):
        requests, _ = _requests(loaded, edits, chosen, progress)
        with _shown("evaluate", progress) as report:
            return Scores(evaluate_loaded(loaded, requests, chosen, found, report))


def localize(
    model: Model,
    edits: EditRows,
    settings: GivenSettings = None,
    *,
    seed: int | None = None,
    progress: bool = False,
) -> Localization:
    """Find the layer and module of a model where edits are best written; the model is left as it was.

    Known places, then those that a signal ranks first, are tried on a sample of the edits, as many as fit
    `localization.budget_minutes`. Of fewer than 8 edits none can be tried, so the first in order is taken. Arguments
    and errors are those of `edit`.
    """
    with _opened(model, _settings(settings, None, seed)) as (loaded, chosen):
        requests, _ = _requests(loaded, edits, chosen, progress)
        return _localize(loaded, requests, chosen, progress)


def load_patch(folder: str | Path) -> Patch:
    """Read a patch that `Patch.save` or `factpatch edit` wrote; InputError if the folder holds no whole one."""
    return read_patch(folder)


def _settings(given: GivenSettings, location: str | Location | None, seed: int | None) -> Settings:
    """The settings with what was given beside them."""
    settings = settings_from(given)
    if location is not None:
        name = location.name if isinstance(location, Location) else location
        if not isinstance(name, str):
            raise InputError(f"location is {location!r}; give a text such as '22:mlp.down_proj', or a Location")
        settings = replace(settings, localization=replace(settings.localization, location=name))
    if seed is not None:
        settings = replace(settings, training=replace(settings.training, seed=seed))
    return settings


@contextmanager
def _opened(model: Model, settings: Settings) -> Iterator[tuple[LoadedModel, Settings]]:
    """The model ready for work, and the settings that say which one it is."""
    if isinstance(model, (str, Path)):
        settings = replace(settings, model=replace(settings.model, path=str(model)))
        yield load_model(settings.model), settings
    elif isinstance(model, tuple) and len(model) == 2:
        with borrow(*model) as loaded:
            dtype: Any = str(loaded.model.dtype).removeprefix("torch.")
            own = replace(settings.model, path=loaded.source, dtype=dtype, device=str(loaded.model.device))
            yield loaded, replace(settings, model=own)
    else:
        raise InputError(
            f"the model is a {type(model).__name__}; give a folder, a hub name, or the pair (model, tokenizer)"
        )


def _requests(
    loaded: LoadedModel, edits: EditRows, settings: Settings, progress: bool
) -> tuple[list[EditRequest], Sequence[str]]:
    """The edits with something to be measured by, and notes on what was made for them."""
    rows, budget = known_rows(loaded.model.config), settings.evaluation.max_new_tokens
    found = edits_from(edits, settings.edits.columns, budget, loaded.tokenizer, rows)[: settings.edits.limit]
    with _shown("probes", progress) as report:
        made = make_probes(loaded, found, settings, lambda done, total: report(done, total, ""))
    return with_made_probes(found, made.rows), made.notes


def _place(
    loaded: LoadedModel, edits: Sequence[EditRequest], settings: Settings, progress: bool
) -> tuple[Location, Sequence[str]]:
    """Where the settings say to write, or where a search says, with its notes."""
    if settings.localization.location is not None:
        return locate(loaded.model, settings.localization.location), ()
    found = _localize(loaded, edits, settings, progress)
    return found.location, found.report["notes"]


def _localize(loaded: LoadedModel, edits: Sequence[EditRequest], settings: Settings, progress: bool) -> Localization:
    with _shown("localize", progress) as report:
        value = search(loaded, edits, settings, report)
    return Localization(locate(loaded.model, value["location"]["name"]), value["reason"], value)


@contextmanager
def _shown(label: str, wanted: bool) -> Iterator[Report]:
    """Progress that is shown, or that nobody sees."""
    if not wanted:
        yield lambda done, total, note: None
        return
    with show_progress(label) as report:
        yield report
