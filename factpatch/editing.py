"""One edit run in memory: encode all edits, train the located parameters, return the new values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from factpatch.edits.request import EditRequest
from factpatch.edits.subjects import with_subjects
from factpatch.errors import InputError
from factpatch.files import digest_value
from factpatch.methods.base import EditJob, TrainingProgress, TrainingResult, TrainingRows, settings_of
from factpatch.methods.checkpoint import CheckpointPolicy
from factpatch.methods.learning_rate import with_step_size
from factpatch.methods.lookup import find_method, refuse_unfit
from factpatch.models.encoding import Encoded, encode_pairs
from factpatch.models.loading import LoadedModel, fingerprint, known_digests, tensor_digest
from factpatch.models.locations import Location
from factpatch.progress import Progress, Report
from factpatch.settings.config import Settings
from factpatch.settings.training import decisive
from factpatch.training_data.carry_over import NOTHING_CARRIED_OVER, CarriedOver
from factpatch.training_data.rows import FoundRows, find_training_rows

TRUNK_NOTE = "rows through the frozen layers"  # what progress says of them


@dataclass(frozen=True)
class StartingPoint:
    """What an edit run continues from; by default the base model.

    Attributes:
        values: of the located tensors, such as the last release's; None for the base model's.
        learnt: those of the edits that these values hold already.
        carried_over: what they were trained with beside the edits' own prompts.
        withdrawn: prompts that edits once had.
    """

    values: Mapping[str, torch.Tensor] | None = None
    learnt: tuple[EditRequest, ...] = ()
    carried_over: CarriedOver = NOTHING_CARRIED_OVER
    withdrawn: tuple[str, ...] = ()


@dataclass(frozen=True)
class EditRun:
    """What one edit run gave: the rows trained beside the edits' own, and the new values with how training went."""

    rows: FoundRows
    training: TrainingResult


def encode_edits(loaded: LoadedModel, edits: Sequence[EditRequest], chat_template: bool) -> list[Encoded]:
    """The training rows: prompts and targets only, never a paraphrase or a probe."""
    return encode_pairs(loaded.tokenizer, [(edit.prompt, edit.target) for edit in edits], chat_template)


def run_edit(
    loaded: LoadedModel,
    location: Location,
    edits: Sequence[EditRequest],
    settings: Settings,
    further: TrainingRows = TrainingRows(),
    progress: TrainingProgress | None = None,
    trunk_progress: Progress | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    warm_start: Mapping[str, torch.Tensor] | None = None,
) -> TrainingResult:
    """Train the edits at the location by the configured method; the model is left as found.

    What the method cannot use of rows, checkpoint and warm start (its `abilities`) is left aside.

    Args:
        loaded: the base model.
        location: where to write.
        edits: what to write.
        settings: of the whole run.
        further: augmented and preserved rows (`factpatch.training_data.rows`) to train beside the edits' own.
        progress: told about epochs or edits done.
        trunk_progress: told about rows whose trunk is done.
        checkpoint: file that the method keeps its state in; without it a killed run starts anew.
        resume: continue from that file if it is there; InputError if it belongs to another run.
        warm_start: values of the located tensors to start from, such as the last release's.
    """
    if not edits:
        raise InputError("there is no edit to write; add rows to the edit file")
    training = settings.training
    method = find_method(training.method)
    abilities = method.abilities
    refuse_unfit(method, loaded.model, location, edits)
    rows = TrainingRows(
        tuple(encode_edits(loaded, edits, settings.edits.chat_template)),
        further.augmented if abilities.augmented else (),
        further.preserved if abilities.preserved else (),
    )
    job = EditJob(
        loaded,
        location,
        rows,
        settings_of(method, training),
        with_subjects(edits)[0] if abilities.needs_subject else edits,
        settings.trunk,
        progress,
        trunk_progress,
        warm_start=warm_start if abilities.warm_start else None,
        chat_template=settings.edits.chat_template,
    )
    if checkpoint is not None and abilities.resume:
        identity = run_identity(job, settings)
        job = replace(job, checkpoint=CheckpointPolicy(checkpoint, identity, resume, training.checkpoint_seconds))
    return method.run(job)


def run_identity(job: EditJob, settings: Settings) -> dict[str, str]:
    """What a run's state belongs to, by digest; the keys are words for messages."""
    return {
        "base model": fingerprint(known_digests(job.loaded.model)),
        "edits": _digest_rows(job.rows.edits),
        "further wordings": _digest_rows(job.rows.augmented),
        "protected prompts": _digest_rows(job.rows.preserved),
        "location": job.location.name,
        "training settings": digest_value(decisive(settings.training)),
        "values to begin with": digest_value(
            {name: tensor_digest(value) for name, value in (job.warm_start or {}).items()}
        ),
    }


def _digest_rows(rows: Sequence[Encoded]) -> str:
    return digest_value([(row.ids, row.prompt_length) for row in rows])


def edit_model(
    loaded: LoadedModel,
    location: Location,
    edits: Sequence[EditRequest],
    settings: Settings,
    start: StartingPoint | None = None,
    progress: Report | None = None,
    on_rows: Callable[[FoundRows], None] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> EditRun:
    """Find the rows that are trained beside the edits' own, and train; the model is left as found.

    Args:
        loaded: the base model.
        location: where to write.
        edits: what to write; those in `start.learnt` are among them.
        settings: of the whole run.
        start: what the run continues from.
        progress: told about rows through the frozen layers (TRUNK_NOTE), then about epochs or edits done.
        on_rows: given the rows before training begins.
        checkpoint, resume: as in `run_edit`.
    """
    start, report = start or StartingPoint(), progress or (lambda done, total, note: None)
    learnt = set(start.learnt)
    new = [edit for edit in edits if edit not in learnt]
    rows = find_training_rows(loaded, new, settings, start.learnt, start.carried_over, start.withdrawn)
    if on_rows:
        on_rows(rows)
    result = run_edit(
        loaded,
        location,
        edits,
        settings,
        rows,
        lambda done, total, loss: report(done, total, f"loss {loss:.4f}"),
        lambda done, total: report(done, total, TRUNK_NOTE),
        checkpoint,
        resume,
        start.values,
    )
    return EditRun(rows, result)


def describe_run(
    loaded: LoadedModel, location: Location, edits: Sequence[EditRequest], settings: Settings, run: EditRun
) -> dict[str, Any]:
    """How training went, as `edit.json` and a patch's manifest hold it."""
    result, method = run.training, find_method(settings.training.method)
    has_step = any(own.name == "learning_rate" for own in fields(method.settings_type))
    return {
        "method": method.name,
        "learning_rate": with_step_size(settings.training, loaded.model, location).step_size if has_step else None,
        "epochs": len(result.losses),
        "steps": result.steps,
        "visits": result.visits,
        "engine": result.engine,
        "protected": len(run.rows.preserved),
        "wordings": len(run.rows.augmented),
        "leakage": {"checked": run.rows.leakage_checked, "found": 0},
        "notes": list(run.rows.notes),
        "unsure": None if result.unsure is None else [edits[index].id for index in result.unsure],
        "last_loss": result.losses[-1] if result.losses else None,  # none where all was held already
    }
