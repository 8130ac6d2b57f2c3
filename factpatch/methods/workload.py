"""How much work a method's training is, told by the lengths of its rows and the model's sizes: nothing is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from factpatch.frozen_trunk.plan import Layout, positions
from factpatch.methods.optimizer import micro_batches
from factpatch.models.encoding import Encoded


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a model at a location: numbers of parameters, and numbers of activations for each position.

    Attributes:
        model: all parameters; tied tensors count once.
        located: the trained ones.
        trunk: matrices that a position passes through once, up to what is kept. Of experts only those in use count.
        head: matrices that it passes through in every later pass, without the one that gives the logits.
        back: matrices that its gradients are computed through or for.
        trunk_blocks, blocks: decoder blocks that run once, and in every later pass.
        kept: activations kept by the trunk.
        saved: activations that a pass saves for its gradients.
        width, vocabulary: of the matrix that gives the logits.
        read_squares: numbers of all matrices that whiten what located projections read.
        read_products: products of the located projections with these matrices.
        layout: how the rows of a pass lie, as the trunk's plan has it.
    """

    model: int
    located: int
    trunk: int
    head: int
    back: int
    trunk_blocks: int
    blocks: int
    kept: int
    saved: int
    width: int
    vocabulary: int
    read_squares: int
    read_products: int
    layout: Layout


@dataclass(frozen=True)
class ForwardPass:
    """A forward pass: rows, positions, and positions that predict target tokens; padding is counted in."""

    rows: int
    positions: int
    predicted: int


@dataclass(frozen=True)
class Workload:
    """What a method's training takes beside the located tensors and their optimizer.

    Attributes:
        passes: forward and backward, of an epoch that visits every edit.
        steps: of the optimizer in that epoch.
        epochs: at most.
        checks: passes without gradients that look at rows again.
        whitened_products: of whitening, twice a step.
        held_bytes: memory that is held all the time.
        checkpoint_bytes: of a checkpoint on disk.
        moments_bytes: of second moments that are kept on disk.
    """

    passes: Sequence[ForwardPass]
    steps: int
    epochs: int
    checks: Sequence[ForwardPass] = ()
    whitened_products: int = 0
    held_bytes: int = 0
    checkpoint_bytes: int = 0
    moments_bytes: int = 0


def batch_passes(rows: Sequence[Encoded], batch: int, micro: int | None, layout: Layout) -> Iterator[ForwardPass]:
    """The passes that take the rows in mini-batches of so many, each in micro-batches of similar lengths."""
    for start in range(0, len(rows), batch):
        chosen = rows[start : start + batch]
        for part in micro_batches([positions(row, layout) for row in chosen], micro, layout):
            yield one_pass([chosen[place] for place in part], layout)


def one_pass(rows: Sequence[Encoded], layout: Layout) -> ForwardPass:
    """A pass of these rows together."""
    predicted = [len(row.ids) - row.prompt_length for row in rows]
    if layout != "padded":
        return ForwardPass(len(rows), sum(positions(row, layout) for row in rows), sum(predicted))
    return ForwardPass(len(rows), len(rows) * max(len(row.ids) - 1 for row in rows), len(rows) * max(predicted))
