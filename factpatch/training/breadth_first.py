"""Breadth-first training: ordinary epochs over all edits in mini-batches (LocFT-BF, arXiv 2509.22072)."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from factpatch.config import TrainingSettings
from factpatch.models import LoadedModel
from factpatch.structure import Location
from factpatch.training.checkpoint import load_checkpoint, remove_checkpoint, save_checkpoint, wait
from factpatch.training.guards import BEGUN_RATIO, Guards, guards_of
from factpatch.training.keeping import Keeping
from factpatch.training.masters import Masters, masters_of
from factpatch.training.projection import make_projection
from factpatch.training.revisits import Revisits
from factpatch.training.schedule import Schedule
from factpatch.training.step_size import with_step_size
from factpatch.training.steps import Progress, Stepper, TrainingResult
from factpatch.training.strength import Parts, likely, look_at, next_weight
from factpatch.trunk import Rows

FEW, AGAIN = 16, 3  # wrong rows in the last epochs of a run that adds to an earlier one's, and more visits to each
PATIENCE = 4  # epochs in which no fewer rows are unsure, after which a run ends where all edits are right
SPARED = 0.05  # share of further wordings, but of an earlier run's, that need not be learnt
CHECK_ROWS = 256  # rows of a forward pass that only checks


@dataclass(frozen=True)
class Survival:
    """Where a run keeps its state, how many seconds go by between saves at least, and whose it is; `resume` continues
    from it."""

    path: Path
    identity: dict[str, str]
    resume: bool
    seconds: float


@dataclass
class Position:
    """Where a run stands: everything but tensors."""

    epoch: int = 0
    cursor: int = 0  # rows of this epoch's order that are done
    steps: int = 0
    visits: int = 0
    total: float = 0.0  # loss summed over the rows visited in this epoch
    weight: float = 1.0  # of kept rows
    first: int = 0  # rows of edits due in the first epoch of a run that adds to an earlier one's values; 0 in others
    fewest: int = -1  # rows that were unsure when an epoch ended, at the least; -1 before the first
    since: int = 0  # epochs that have ended since then
    losses: list[float] = field(default_factory=list)

    def note(self, unsure: int) -> None:
        """Take down how many rows are unsure when an epoch ends."""
        fewer = self.fewest < 0 or unsure < self.fewest
        self.fewest, self.since = (unsure, 0) if fewer else (self.fewest, self.since + 1)


@dataclass
class Run:
    """All that changes while a run goes on, and that a checkpoint holds; `order` are the rows of the present epoch."""

    stepper: Stepper
    revisits: Revisits
    guards: Guards
    generator: torch.Generator
    position: Position
    order: torch.Tensor


def breadth_first(
    loaded: LoadedModel,
    location: Location,
    rows: Rows,
    edits: int,
    settings: TrainingSettings,
    progress: Progress | None = None,
    survival: Survival | None = None,
    start: Mapping[str, torch.Tensor] | None = None,
    wordings: int = 0,
) -> TrainingResult:
    """Train the located parameters with Adam in epochs of shuffled mini-batches.

    The first `edits` of the rows are edits, the next `wordings` are their further wordings; the rest are kept, and an
    epoch visits `protect_ratio` of them, drawn anew, for each row of an edit that it visits. With `revisit`, rows that
    are learnt wait longer and longer. Training then ends when a check of all finds each target token at least as
    probable as `confidence` (but for a few wordings), or right where no more of them became so for long; without
    `revisit` it ends when an epoch's mean loss is below `stop_loss`.
    `start` holds values to begin with (those of an earlier patch): what they hold already is verified before the first
    epoch, and then visited in turn along with what is due; kept rows come in turn too, those that moved at once. Such a
    run is gentler and shorter: batches are sized by what is due alone, steps are half as large and fall within the
    first epochs. Then it visits only what does not hold, most often what is not surely right, and ends when a check
    finds that all is. The model is left as found; the result holds the new values.
    """
    settings = with_step_size(settings, loaded.model, location)
    parts = Parts.of(len(rows), edits, wordings, settings.adaptive)
    with masters_of(loaded.model, location, settings.rank, settings.seed) as masters:
        stepper = _stepper(loaded, masters, rows, parts, settings)
        still = likely(stepper, parts.still)
        run = Run(
            stepper,
            revisits=Revisits.start(parts.taught, settings.confidence),
            guards=Guards.start(len(parts.kept), settings.seed),
            generator=torch.Generator().manual_seed(settings.seed),
            position=Position(weight=settings.keep_weight),
            order=torch.empty(0, dtype=torch.long),
        )
        if start is not None:
            masters.begin_with(start)
        finished = _begin(run, parts, settings, survival, start is not None)
        position, due = run.position, time.monotonic() + (survival.seconds if survival else math.inf)
        while position.epoch < settings.epochs and not finished:
            if position.cursor == 0:
                run.order = _epoch_order(run, parts, settings)
            while position.cursor < len(run.order):
                _step(run, parts, settings)
                if survival and time.monotonic() >= due:
                    due = _save(run, survival)
            position.losses.append(position.total / len(run.order) if len(run.order) else position.losses[-1])
            position.note(len(run.revisits.unsure()))
            finished = is_finished(run, parts, settings)
            if settings.adaptive:
                signals = look_at(stepper, parts.wordings, still)
                position.weight = next_weight(position.weight, settings.keep_weight, signals)
            position.epoch, position.cursor, position.total = position.epoch + 1, 0, 0.0
            if progress:
                progress(position.epoch, settings.epochs, position.losses[-1])
        unsure: tuple[int, ...] | None = None
        if settings.revisit:
            if not finished:
                check(stepper, parts.taught, run.revisits, position.epoch)
            left = run.revisits.wrong() if position.first else run.revisits.unsure()
            unsure = tuple(index for index in left.tolist() if index < edits)
        values = loaded.stored.rounded(masters.values())
        return TrainingResult(values, tuple(position.losses), position.steps, position.visits, unsure, rows.engine)


def _stepper(loaded: LoadedModel, masters: Masters, rows: Rows, parts: Parts, settings: TrainingSettings) -> Stepper:
    """With the terms that the settings ask for; the model still has its base values."""
    keeping = projection = None
    if len(parts.kept):
        keeping = Keeping(rows, masters, parts.kept.start, settings.keep == "answers", settings.keep_memory_gb)
    if len(parts.kept) and settings.project != "none":
        projection = make_projection(
            loaded.model, masters.names, rows, parts.kept, settings.project, settings.project_share
        )
    return Stepper(rows, masters, settings.step_size, settings.micro_batch, keeping, projection)


def _begin(run: Run, parts: Parts, settings: TrainingSettings, survival: Survival | None, begun: bool) -> bool:
    """Continue from the checkpoint, or start anew, without what is left of another; `begun` are values of an earlier
    patch, to be verified first. Is there nothing to train?"""
    if survival and survival.resume and survival.path.exists():
        _restore(run, survival)
        return False
    if survival:
        remove_checkpoint(survival.path)
    if not begun or not settings.revisit:
        return False
    check(run.stepper, parts.taught, run.revisits, -1)
    run.revisits.line_up(run.generator)
    run.position.first = len(run.revisits.due(0))
    return _learnt(run.revisits.unsure(), run, parts)


def _step(run: Run, parts: Parts, settings: TrainingSettings) -> None:
    """One mini-batch: the next rows of the epoch's order."""
    position = run.position
    visited = min(len(run.order), position.first or len(run.order))
    batch = run.order[position.cursor : position.cursor + settings.rows_a_step(visited)]
    _set_step_size(run, settings)
    loss, hardest_B = run.stepper.gradients(batch.tolist(), position.weight)
    run.stepper.step()
    taught = batch < parts.taught
    run.revisits.note(batch[taught], hardest_B[taught], position.epoch)
    run.guards.note(batch[~taught] - parts.kept.start, hardest_B[~taught] / (position.weight or 1.0))
    position.total += loss * len(batch)
    position.cursor += len(batch)
    position.steps += 1
    position.visits += len(batch)


def check(stepper: Stepper, taught: int, revisits: Revisits, epoch: int) -> torch.Tensor:
    """Look at all rows of edits without training; indices of those that are not learnt. They are due in the next
    epoch."""
    for start in range(0, taught, CHECK_ROWS):
        part = torch.arange(start, min(start + CHECK_ROWS, taught))
        revisits.note(part, stepper.look(part.tolist()), epoch)
    return revisits.unsure()


def is_finished(run: Run, parts: Parts, settings: TrainingSettings) -> bool:
    """Is training done? A mean loss decides, or a check of all rows of edits once enough were found learnt. A run that
    adds to an earlier one's values looks at all rows when its first epochs end, and after each of the last ones."""
    position, revisits = run.position, run.revisits
    if not settings.revisit:
        return position.losses[-1] < settings.stop_loss
    if _late(position, settings, position.epoch):
        return _right(run, parts)
    if _late(position, settings, position.epoch + 1):
        check(run.stepper, parts.taught, revisits, position.epoch)
        return _learnt(revisits.wrong(), run, parts)
    if not _learnt(revisits.unsure(), run, parts) and not _stuck(run, parts):
        return False
    check(run.stepper, parts.taught, revisits, position.epoch)
    return _learnt(revisits.unsure(), run, parts) or _stuck(run, parts)


def _stuck(run: Run, parts: Parts) -> bool:
    """Is every edit right, and has none become sure for long? What is kept holds some back for good."""
    return run.position.since >= PATIENCE and _learnt(run.revisits.wrong(), run, parts)


def _right(run: Run, parts: Parts) -> bool:
    """Is all surely right? Rows that were hardest at their last visit come first, and the look ends where enough are
    found wrong and a part holds no further one: the next epoch visits those, and the next look comes to the rest."""
    revisits = run.revisits
    for part in revisits.hardest(torch.arange(parts.taught), parts.taught).split(CHECK_ROWS):
        revisits.note(part, run.stepper.look(part.tolist()), run.position.epoch)
        wrong = revisits.wrong()
        if not _learnt(wrong, run, parts) and not torch.isin(part, wrong).any():
            return False
    return _learnt(revisits.wrong(), run, parts)


def _late(position: Position, settings: TrainingSettings, epoch: int) -> bool:
    """Have the first epochs of a run that adds to an earlier one's values ended when that epoch begins?"""
    return position.first > 0 and epoch >= Schedule.of(settings, begun=True).span


def _learnt(unsure: torch.Tensor, run: Run, parts: Parts) -> bool:
    """Every edit, and of their further wordings all but a few?"""
    wordings = parts.taught - parts.edits
    new = min(wordings, run.position.first) if run.position.first else wordings
    return not (unsure < parts.edits).any() and len(unsure) <= SPARED * new


def _epoch_order(run: Run, parts: Parts, settings: TrainingSettings) -> torch.Tensor:
    """Rows of one epoch in random order: those due, and kept ones.

    Where a run adds to an earlier one's values, its first epochs visit as many old rows as are due, and bring back kept
    ones that they moved, while steps are large enough; and what `protect_least` asks shrinks with what is due, as an
    epoch that visits a few rows more of what is new moves little.
    """
    due = due_rows(run, settings) if settings.revisit else torch.arange(parts.taught)
    share = min(1.0, len(due) / run.position.first) if run.position.first else 1.0
    guards = guards_of(settings, len(due), len(parts.kept), share)
    if not run.position.first:
        turns, drawn = 0, torch.randperm(len(parts.kept), generator=run.generator)[:guards]
    elif _late(run.position, settings, run.position.epoch):
        turns, drawn = 0, run.guards.draw(guards, returning=False)
    else:
        turns = len(due)
        drawn = run.guards.draw(min(len(parts.kept), round(BEGUN_RATIO * guards)), returning=True)
    visited = torch.cat([due, run.revisits.turns(turns), parts.kept.start + drawn])
    return visited[torch.randperm(len(visited), generator=run.generator)]


def due_rows(run: Run, settings: TrainingSettings) -> torch.Tensor:
    """Rows of edits that are not learnt, or whose wait is over. Where a run adds to an earlier one's values, rows that
    hold come along only until there are as many as in its first epoch, so that its cost does not grow with all that was
    learnt before. In its last epochs what is not steady is due, and a few rows that are wrong several times."""
    position, revisits = run.position, run.revisits
    if not position.first:
        return revisits.due(position.epoch)
    if _late(position, settings, position.epoch):
        few = revisits.hardest(revisits.wrong(), FEW)
        return torch.cat([revisits.hardest(revisits.unsteady(), position.first), few.repeat(AGAIN)])
    return revisits.hardest(revisits.due(position.epoch), max(position.first, len(revisits.wrong())))


def _set_step_size(run: Run, settings: TrainingSettings) -> None:
    position = run.position
    schedule = Schedule.of(settings, position.first > 0)
    for group in run.stepper.optimizer.param_groups:
        group["lr"] = schedule.at(position.epoch + position.cursor / len(run.order), position.steps)


def _save(run: Run, survival: Survival) -> float:
    """Write the checkpoint; when the next one is due."""
    start = time.monotonic()
    stepper, revisits, guards = run.stepper, run.revisits, run.guards
    tensors = {"order": run.order, "generator": run.generator.get_state(), "hardest": revisits.hardest_N}
    tensors |= {"due": revisits.due_N, "wait": revisits.wait_N, "turn": revisits.turn_N, "moved": guards.moved_K}
    for number, master in enumerate(stepper.masters.tensors):
        tensors[f"{number}.master"] = master
        tensors |= {f"{number}.{name}": value for name, value in stepper.optimizer.state[master].items()}
    numbers: dict[str, Any] = {**vars(run.position), "micro": stepper.micro, "guarded": guards.next}
    save_checkpoint(survival.path, tensors, numbers, survival.identity)
    end = time.monotonic()
    return end + wait(survival.seconds, end - start)


def _restore(run: Run, survival: Survival) -> None:
    """Put a run where the checkpoint says. Of two bounds of the micro-batch, that which it had come to and the one
    asked for now, the smaller holds."""
    tensors, numbers = load_checkpoint(survival.path, survival.identity)
    stepper, revisits = run.stepper, run.revisits
    run.generator.set_state(tensors["generator"])
    revisits.hardest_N, revisits.turn_N = tensors["hardest"], tensors["turn"]
    revisits.due_N, revisits.wait_N = tensors["due"], tensors["wait"]
    run.guards.moved_K, run.guards.next = tensors["moved"], numbers.pop("guarded")
    for number, master in enumerate(stepper.masters.tensors):
        master.copy_(tensors[f"{number}.master"])
        state = {name: tensors[f"{number}.{name}"] for name in ("step", "exp_avg", "exp_avg_sq")}
        stepper.optimizer.state[master] = {
            name: value if name == "step" else value.to(master.device) for name, value in state.items()
        }
    stepper.masters.write_back()
    stepper.micro = min((size for size in (numbers.pop("micro"), stepper.micro) if size), default=None)
    run.order, run.position = tensors["order"], Position(**numbers)
