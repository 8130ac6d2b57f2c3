"""One edit run in memory: encode all edits, train the located parameters, return the new values."""

from __future__ import annotations

from collections.abc import Sequence

from factpatch.config import Settings
from factpatch.edits.request import EditRequest
from factpatch.encoding import Encoded, encode_edit
from factpatch.errors import InputError
from factpatch.models import LoadedModel
from factpatch.structure import Location
from factpatch.training import Progress, TrainingResult, breadth_first, depth_first


def encode_edits(loaded: LoadedModel, edits: Sequence[EditRequest], chat_template: bool) -> list[Encoded]:
    """The training rows: prompts and targets only, never a paraphrase or a probe."""
    return [encode_edit(loaded.tokenizer, edit.prompt, edit.target, chat_template) for edit in edits]


def run_edit(
    loaded: LoadedModel,
    location: Location,
    edits: Sequence[EditRequest],
    settings: Settings,
    protected: Sequence[Encoded] = (),
    progress: Progress | None = None,
) -> TrainingResult:
    """Train the edits at the location by the configured method; the model is left as found.

    `protected` rows (`factpatch.protection`) join the epochs of breadth-first training; depth-first ignores them.
    """
    if not edits:
        raise InputError("there is no edit to write; add rows to the edit file")
    rows = encode_edits(loaded, edits, settings.edits.chat_template)
    if settings.training.method == "depth-first":
        return depth_first(loaded, location, rows, settings.training, progress)
    return breadth_first(loaded, location, rows, settings.training, protected, progress)
