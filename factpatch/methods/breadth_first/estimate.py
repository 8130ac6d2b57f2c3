"""How much work breadth-first training is: the passes of an epoch, those that check, and what is held meanwhile."""

from __future__ import annotations

import random
from dataclasses import replace

from factpatch.methods.base import TrainingRows
from factpatch.methods.breadth_first.preservation_schedule import preserved_in_epoch
from factpatch.methods.breadth_first.run import CHECK_ROWS
from factpatch.methods.preservation import base_bytes, tokens_asked
from factpatch.methods.workload import ForwardPass, ModelShape, Workload, batch_passes
from factpatch.settings.config import TrainingSettings


def workload(training: TrainingSettings, rows: TrainingRows, shape: ModelShape) -> Workload:
    """What an epoch that visits all edits with their augmented rows takes, in an order such as training draws."""
    passes = _epoch_passes(training, rows, shape)
    visited = sum(forward_pass.rows for forward_pass in passes)
    checked = rows.edits + rows.augmented if training.revisit else ()
    return Workload(
        passes=passes,
        steps=-(-visited // training.rows_a_step(visited)),
        epochs=training.epochs,
        checks=list(batch_passes(checked, CHECK_ROWS, training.micro_batch, shape.layout)),
        whitened_products=shape.read_products if training.damping else 0,
        held_bytes=_held_bytes(training, rows, shape),
        checkpoint_bytes=12 * shape.located,
        moments_bytes=8 * shape.read_squares if training.damping else 0,
    )


def _epoch_passes(training: TrainingSettings, rows: TrainingRows, shape: ModelShape) -> list[ForwardPass]:
    """Passes of preserved rows stand apart, as most of the vocabulary is left out of them."""
    generator = random.Random(training.seed)
    taught = rows.edits + rows.augmented
    count = preserved_in_epoch(training.preservation, len(taught), len(rows.preserved))
    preserved = generator.sample(list(rows.preserved), count)
    order = [*((row, False) for row in taught), *((row, True) for row in preserved)]
    generator.shuffle(order)
    batch = training.rows_a_step(len(order))
    found: list[ForwardPass] = []
    for start in range(0, len(order), batch):
        for is_preserved in (False, True):
            own = [row for row, preserved_row in order[start : start + batch] if preserved_row is is_preserved]
            passes = batch_passes(own, max(1, len(own)), training.micro_batch, shape.layout)
            fewer = is_preserved and training.preservation.loss == "kl"
            found += [_fewer_logits(shape, forward_pass) for forward_pass in passes] if fewer else passes
    return found


def _fewer_logits(shape: ModelShape, forward_pass: ForwardPass) -> ForwardPass:
    """A pass of preserved rows: as many positions as hold its logits where each has the whole vocabulary."""
    asked = tokens_asked(forward_pass.predicted, shape.vocabulary)
    return replace(forward_pass, predicted=-(-forward_pass.predicted * asked // shape.vocabulary))


def _held_bytes(training: TrainingSettings, rows: TrainingRows, shape: ModelShape) -> int:
    """What the preservation term holds, the base model's likeliest tokens, and what whitens, with the moment that it is
    made of in double precision."""
    whitening = 12 * shape.read_squares if training.damping else 0
    if training.preservation.loss == "cross-entropy":
        return whitening
    return whitening + base_bytes(rows.preserved, shape.vocabulary)
