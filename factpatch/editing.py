"""One edit run in memory: encode all edits, train the located parameters, return the new values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from factpatch.edits.request import EditRequest
from factpatch.errors import InputError
from factpatch.files import digest_value
from factpatch.frozen_trunk import open_rows
from factpatch.methods.breadth_first.training import CheckpointPolicy, breadth_first
from factpatch.methods.depth_first.training import depth_first
from factpatch.methods.optimizer import Progress, TrainingResult
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
    preserved: Sequence[Encoded] = (),
    progress: Progress | None = None,
    trunk_progress: Callable[[int, int], None] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    warm_start: Mapping[str, torch.Tensor] | None = None,
    augmented: Sequence[Encoded] = (),
) -> TrainingResult:
    """Train the edits at the location by the configured method; the model is left as found.

    Args:
        loaded: the base model.
        location: where to write.
        edits: what to write.
        settings: of the whole run.
        protected: preserved rows (`factpatch.training_data.rows`) that join the epochs of breadth-first training;
            depth-first ignores them.
        progress: told about epochs or edits done.
        trunk_progress: told about rows whose trunk is done.
        checkpoint: file that breadth-first training keeps its state in; without it a killed run starts anew.
        resume: continue from that file if it is there; InputError if it belongs to another run.
        start: values of the located tensors to start from, such as the last release's; depth-first ignores them.
        wordings: rows (`factpatch.training_data.rows`) of the edits in further wordings; depth-first ignores them.
    """
    if not edits:
        raise InputError("there is no edit to write; add rows to the edit file")
    rows = encode_edits(loaded, edits, settings.edits.chat_template)
    training = settings.training
    if training.method == "depth-first":
        with open_rows(loaded, location, rows, settings.trunk, trunk_progress) as opened:
            return depth_first(loaded, location, opened, training, progress)
    checkpoint_policy = None
    if checkpoint is not None:
        identity = run_identity(loaded, location, rows, preserved, settings, warm_start or {}, augmented)
        checkpoint_policy = CheckpointPolicy(checkpoint, identity, resume, training.checkpoint_seconds)
    with open_rows(loaded, location, [*rows, *augmented, *preserved], settings.trunk, trunk_progress) as opened:
        return breadth_first(
            loaded, location, opened, len(rows), training, progress, checkpoint_policy, warm_start, len(augmented)
        )


def run_identity(
    loaded: LoadedModel,
    location: Location,
    rows: Sequence[Encoded],
    preserved: Sequence[Encoded],
    settings: Settings,
    warm_start: Mapping[str, torch.Tensor],
    augmented: Sequence[Encoded] = (),
) -> dict[str, str]:
    """What a run's state belongs to, by digest; the keys are words for messages."""
    return {
        "base model": fingerprint(known_digests(loaded.model)),
        "edits": digest_value([(row.ids, row.prompt_length) for row in rows]),
        "further wordings": digest_value([(row.ids, row.prompt_length) for row in augmented]),
        "protected prompts": digest_value([(row.ids, row.prompt_length) for row in preserved]),
        "location": location.name,
        "training settings": digest_value(decisive(settings.training)),
        "values to begin with": digest_value({name: tensor_digest(value) for name, value in warm_start.items()}),
    }
