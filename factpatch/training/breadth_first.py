"""Breadth-first training: ordinary epochs over all edits in mini-batches (LocFT-BF, arXiv 2509.22072)."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from factpatch.config import TrainingSettings
from factpatch.encoding import Encoded, padding_id
from factpatch.models import LoadedModel
from factpatch.structure import Location
from factpatch.training.masters import masters_of
from factpatch.training.steps import Progress, TrainingResult, backward, step

WINDOW = 8  # mini-batches that are formed by length together: little padding, while the order stays random


def breadth_first(
    loaded: LoadedModel,
    location: Location,
    rows: Sequence[Encoded],
    settings: TrainingSettings,
    protected: Sequence[Encoded] = (),
    progress: Progress | None = None,
) -> TrainingResult:
    """Train the located parameters with Adam until an epoch's mean loss is below the threshold.

    An epoch visits every edit and, for each, `protect_ratio` of the `protected` rows, drawn anew every time. The model
    is left as found; the result holds the new values.
    """
    generator = random.Random(settings.seed)
    pad = padding_id(loaded.tokenizer)
    losses: list[float] = []
    steps = 0
    with masters_of(loaded.model, location) as masters:
        optimizer = torch.optim.Adam(masters.tensors, lr=settings.learning_rate)
        guards = min(len(protected), round(len(rows) * settings.protect_ratio))
        for epoch in range(settings.epochs):
            total = 0.0
            visited = [*rows, *generator.sample(protected, guards)]
            for indices in epoch_batches([len(row.ids) for row in visited], settings.batch_size, generator):
                total += backward(loaded.model, masters, [visited[index] for index in indices], pad) * len(indices)
                step(optimizer, masters)
                steps += 1
            losses.append(total / len(visited))
            if progress:
                progress(epoch + 1, settings.epochs, losses[-1])
            if losses[-1] < settings.stop_loss:
                break
        return TrainingResult(masters.values(loaded.stored_dtype), tuple(losses), steps)


def epoch_batches(lengths: Sequence[int], size: int, generator: random.Random) -> list[list[int]]:
    """One epoch's mini-batches: all edits once, shuffled, sorted by length inside a window, the batches shuffled."""
    order = list(range(len(lengths)))
    generator.shuffle(order)
    batches = []
    for start in range(0, len(order), size * WINDOW):
        window = sorted(order[start : start + size * WINDOW], key=lambda index: lengths[index])
        batches += [window[first : first + size] for first in range(0, len(window), size)]
    generator.shuffle(batches)
    return batches
