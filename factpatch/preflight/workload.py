"""How much work an edit run is, from the model's configuration and the lengths of the rows alone: nothing is loaded.

The model is built on torch's meta device, where tensors have shapes but no values, so that locations resolve as ever.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from factpatch.errors import InputError
from factpatch.frozen_trunk.plan import entry_of, positions, read_width
from factpatch.frozen_trunk.replay import TRUNK_BATCH_ROWS, batch_width
from factpatch.methods.breadth_first.preservation_schedule import preserved_in_epoch
from factpatch.methods.breadth_first.training import CHECK_ROWS
from factpatch.methods.optimizer import micro_batches
from factpatch.methods.preservation import base_bytes, tokens_asked
from factpatch.models.encoding import Encoded
from factpatch.models.locations import Location, decoder_blocks
from factpatch.models.roles import attention_module
from factpatch.settings.config import TrainingSettings

SAVED = 1.2  # activations that a pass saves for its gradients, as a multiple of what the matrices' shapes say


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
        packed: only positions that predict target tokens are kept and run.
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
    packed: bool


@dataclass(frozen=True)
class ForwardPass:
    """A forward pass: rows, positions, and positions that predict target tokens; padding is counted in."""

    rows: int
    positions: int
    predicted: int


def shape_of(model: PreTrainedModel, location: Location, keep: bool) -> ModelShape:
    """Sizes at a location; `keep` says whether the trunk is computed once, as `factpatch.frozen_trunk` plans it."""
    config = model.config.get_text_config()
    _, blocks = decoder_blocks(model)
    own, above = blocks[location.layer], blocks[location.layer + 1 :]
    active = [_active(block, config) for block in blocks]
    located = [model.get_parameter(name) for name in location.parameters]
    count = sum(parameter.numel() for parameter in located)
    mixer = _frozen_mixer(own, located)
    packed = keep and mixer is not None and not len(above)
    projection = entry_of(model, location) if packed else None
    entry = read_width(model.get_submodule(projection)) if projection else 0
    trained = min(count, active[location.layer])  # of many experts a position passes through a few
    live = trained if entry else active[location.layer] - (_active(mixer, config) if mixer is not None else 0)
    return ModelShape(
        model=sum(parameter.numel() for parameter in model.parameters()),
        located=count,
        trunk=sum(active[: location.layer + 1]) - live if keep else 0,
        head=live + sum(active[location.layer + 1 :]) if keep else sum(active),
        back=trained + (trained // 2 if len(located) > 1 else 0) + sum(active[location.layer + 1 :]),
        trunk_blocks=location.layer if keep else 0,
        blocks=len(above) + 1 if keep else len(blocks),
        kept=(config.hidden_size * (2 if mixer is not None else 1) + entry) if keep else 0,
        saved=(live + sum(active[location.layer + 1 :])) // config.hidden_size,
        width=config.hidden_size,
        vocabulary=config.vocab_size,
        packed=packed,
    )


def trunk_positions(rows: Iterable[Encoded]) -> tuple[int, int]:
    """Positions that the trunk computes for the rows, padding included, and in how many batches."""
    widths = Counter(map(batch_width, set(rows)))
    batches = {width: -(-count // TRUNK_BATCH_ROWS) for width, count in widths.items()}
    return sum(width * count * TRUNK_BATCH_ROWS for width, count in batches.items()), sum(batches.values())


def kept_positions(rows: Iterable[Encoded], packed: bool) -> int:
    """Positions whose activations the trunk keeps."""
    return sum(positions(row, packed) for row in set(rows))


def epoch_passes(
    edits: Sequence[Encoded], protected: Sequence[Encoded], settings: TrainingSettings, shape: ModelShape
) -> list[ForwardPass]:
    """The passes of an epoch that visits all edits (with their further wordings), in an order such as training
    draws; those of preserved rows apart, as most of the vocabulary is left out of them."""
    if settings.method == "depth-first":
        return [_pass([row], shape.packed) for row in edits]
    generator = random.Random(settings.seed)
    preserved = generator.sample(list(protected), preserved_in_epoch(settings, len(edits), len(protected)))
    order = [*((row, False) for row in edits), *((row, True) for row in preserved)]
    generator.shuffle(order)
    batch = settings.rows_a_step(len(order))
    found: list[ForwardPass] = []
    for start in range(0, len(order), batch):
        for is_preserved in (False, True):
            own = [row for row, preserved_row in order[start : start + batch] if preserved_row is is_preserved]
            passes = _passes(own, max(1, len(own)), settings.micro_batch, shape.packed)
            fewer = is_preserved and settings.keep == "divergence"
            found += map(partial(_fewer_logits, shape), passes) if fewer else passes
    return found


def check_passes(edits: Sequence[Encoded], settings: TrainingSettings, packed: bool) -> list[ForwardPass]:
    """The passes, without gradients, that look at all edits again."""
    if settings.method == "depth-first" or not settings.revisit:
        return []
    return list(_passes(edits, CHECK_ROWS, settings.micro_batch, packed))


def whole_passes(rows: Sequence[Encoded]) -> list[ForwardPass]:
    """Passes that measure rows, those of one length together."""
    ordered = sorted(rows, key=lambda row: len(row.ids))
    return [
        _pass(ordered[start : start + TRUNK_BATCH_ROWS], False) for start in range(0, len(ordered), TRUNK_BATCH_ROWS)
    ]


def term_bytes(
    model: PreTrainedModel, location: Location, shape: ModelShape, kept: Sequence[Encoded], settings: TrainingSettings
) -> int:
    """What preservation and projection hold all the time: the base model's likeliest tokens;
    for each projected matrix its projection, while it is made twice more in float64; and the values before a step."""
    if not kept or settings.method == "depth-first":
        return 0
    held = 0
    if settings.keep == "divergence":
        held += base_bytes(kept, shape.vocabulary)
    if settings.project != "none":
        owners = [model.get_submodule(name.rpartition(".")[0]) for name in location.parameters]
        widths = [read_width(owner) for owner in owners if isinstance(owner, (nn.Linear, Conv1D))]
        held += 4 * shape.located + sum(4 * width**2 for width in widths) + 16 * max(widths, default=0) ** 2
    return held


def pass_bytes(forward_pass: ForwardPass, shape: ModelShape, size: int) -> int:
    """What a training pass holds: activations saved for the gradients, and logits with what the loss makes of them."""
    saved = int(SAVED * forward_pass.positions * shape.saved * size)
    return saved + forward_pass.predicted * shape.vocabulary * logits_bytes(size)


def check_bytes(forward_pass: ForwardPass, shape: ModelShape, size: int) -> int:
    """What a pass without gradients holds: logits, and their logarithms in float32."""
    return forward_pass.predicted * shape.vocabulary * (size + 4 + (4 if size < 4 else 0))


def logits_bytes(size: int) -> int:
    """Of each logit: itself, and in float32 its logarithm and the gradients of both."""
    return size + 12


def _passes(rows: Sequence[Encoded], batch: int, micro: int | None, packed: bool) -> Iterable[ForwardPass]:
    for start in range(0, len(rows), batch):
        chosen = rows[start : start + batch]
        for part in micro_batches([positions(row, packed) for row in chosen], micro, packed):
            yield _pass([chosen[place] for place in part], packed)


def _fewer_logits(shape: ModelShape, forward_pass: ForwardPass) -> ForwardPass:
    """A pass of preserved rows: as many positions as hold its logits where each has the whole vocabulary."""
    asked = tokens_asked(forward_pass.predicted, shape.vocabulary)
    return replace(forward_pass, predicted=-(-forward_pass.predicted * asked // shape.vocabulary))


def _pass(rows: Sequence[Encoded], packed: bool) -> ForwardPass:
    predicted = [len(row.ids) - row.prompt_length for row in rows]
    if packed:
        return ForwardPass(len(rows), sum(predicted), sum(predicted))
    return ForwardPass(len(rows), len(rows) * max(len(row.ids) - 1 for row in rows), len(rows) * max(predicted))


def _active(module: nn.Module, config: object) -> int:
    """Parameters of the matrices that a position passes through: all, but of stacked experts those in use."""
    chosen = getattr(config, "num_experts_per_tok", None) or 1
    return sum(
        parameter.numel() * min(chosen, parameter.shape[0]) // parameter.shape[0]
        if parameter.ndim == 3
        else parameter.numel()
        for parameter in module.parameters()
        if parameter.ndim > 1
    )


def _frozen_mixer(block: nn.Module, located: Sequence[nn.Parameter]) -> nn.Module | None:
    """The block's attention, if its output does not depend on the located tensors."""
    try:
        mixer = attention_module(block)
    except InputError:
        return None
    trained = {id(parameter) for parameter in located}
    return None if any(id(parameter) in trained for parameter in mixer.parameters()) else mixer
