"""One edit run in memory: encode all edits, train the located parameters, return the new values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from factpatch.edits.request import EditRequest
from factpatch.edits.subjects import with_subjects
from factpatch.errors import InputError
from factpatch.files import digest_value
from factpatch.methods.base import EditJob, Progress, TrainingResult, TrainingRows, settings_of
from factpatch.methods.checkpoint import CheckpointPolicy
from factpatch.methods.registry import find_method, refuse_unfit
from factpatch.models.encoding import Encoded, encode_pairs
from factpatch.models.loading import LoadedModel, fingerprint, known_digests, tensor_digest
from factpatch.models.locations import Location
from factpatch.settings.config import Settings
from factpatch.settings.training import decisive


def encode_edits(loaded: LoadedModel, edits: Sequence[EditRequest], chat_template: bool) -> list[Encoded]:
    """The training rows: prompts and targets only, never a paraphrase or a probe."""
    return encode_pairs(loaded.tokenizer, [(edit.prompt, edit.target) for edit in edits], chat_template)


def run_edit(
    loaded: LoadedModel,
    location: Location,
    edits: Sequence[EditRequest],
    settings: Settings,
    further: TrainingRows = TrainingRows(),
    progress: Progress | None = None,
    trunk_progress: Callable[[int, int], None] | None = None,
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
    refuse_unfit(method, location, edits)
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
