"""Depth-first fine-tuning, the old way: each edit to convergence, in order. The baseline to compare with."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from factpatch.config import TrainingSettings
from factpatch.encoding import Encoded, padding_id
from factpatch.models import LoadedModel
from factpatch.structure import Location
from factpatch.training.masters import masters_of
from factpatch.training.steps import Progress, TrainingResult, backward, step


def depth_first(
    loaded: LoadedModel,
    location: Location,
    rows: Sequence[Encoded],
    settings: TrainingSettings,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train on one edit after the other, each with a fresh Adam, until its loss is below the threshold.

    `settings.epochs` bounds the steps an edit gets. The model is left as found; the result holds the new values.
    """
    pad = padding_id(loaded.tokenizer)
    losses: list[float] = []
    steps = 0
    with masters_of(loaded.model, location) as masters:
        for done, row in enumerate(rows, start=1):
            optimizer = torch.optim.Adam(masters.tensors, lr=settings.learning_rate)
            for _ in range(settings.epochs):
                loss = backward(loaded.model, masters, [row], pad)
                if loss < settings.stop_loss:
                    break
                step(optimizer, masters)
                steps += 1
            losses.append(loss)
            if progress:
                progress(done, len(rows), loss)
        return TrainingResult(masters.values(loaded.stored_dtype), tuple(losses), steps)
