"""How much work an edit run is, from the model's configuration and the lengths of the rows alone: nothing is loaded.

The model is built on torch's meta device, where tensors have shapes but no values, so that locations resolve as ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from torch import nn
from transformers import PreTrainedModel

from factpatch.errors import InputError
from factpatch.frozen_trunk.plan import Layout, entry_of, positions
from factpatch.frozen_trunk.trunk_batches import TRUNK_BATCH_ROWS, batch_width
from factpatch.methods.workload import ForwardPass, ModelShape, one_pass
from factpatch.models.encoding import Encoded
from factpatch.models.forward import supported
from factpatch.models.linear import is_projection_weight, owner_of, sizes
from factpatch.models.locations import Location, decoder_blocks
from factpatch.models.roles import attention_module

SAVED = 1.2  # activations that a pass saves for its gradients, as a multiple of what the matrices' shapes say


def shape_of(model: PreTrainedModel, location: Location, keep: bool) -> ModelShape:
    """Sizes at a location; `keep` says whether the trunk is computed once, as `factpatch.frozen_trunk` plans it."""
    config = model.config.get_text_config()
    _, blocks = decoder_blocks(model)
    own, above = blocks[location.layer], blocks[location.layer + 1 :]
    active = [_active(block, config) for block in blocks]
    located = [model.get_parameter(name) for name in location.parameters]
    lowest = [parameter for parameter in own.parameters() if any(parameter is other for other in located)]
    count, own_count = (sum(parameter.numel() for parameter in some) for some in (located, lowest))
    mixer = _frozen_mixer(own, located)
    layout: Layout = "padding-free" if keep and supported(model, position_ids=None) else "padded"
    if keep and mixer is not None and not len(above):
        layout = "packed"
    projection = entry_of(model, location) if layout == "packed" else None
    entry = sizes(model.get_submodule(projection))[0] if projection else 0
    projected = [sizes(owner_of(model, name)) for name in location.parameters if is_projection_weight(model, name)]
    trained = min(own_count, active[location.layer])  # of many experts a position passes through a few
    trained_above = min(count - own_count, sum(active[location.layer + 1 :]))
    live = trained if entry else active[location.layer] - (_active(mixer, config) if mixer is not None else 0)
    return ModelShape(
        model=sum(parameter.numel() for parameter in model.parameters()),
        located=count,
        trunk=sum(active[: location.layer + 1]) - live if keep else 0,
        head=live + sum(active[location.layer + 1 :]) if keep else sum(active),
        back=trained + (trained // 2 if len(lowest) > 1 else 0) + sum(active[location.layer + 1 :]) + trained_above,
        trunk_blocks=location.layer if keep else 0,
        blocks=len(above) + 1 if keep else len(blocks),
        kept=(config.hidden_size * (2 if mixer is not None else 1) + entry) if keep else 0,
        saved=(live + sum(active[location.layer + 1 :])) // config.hidden_size,
        width=config.hidden_size,
        vocabulary=config.vocab_size,
        read_squares=sum(read**2 for read, _ in projected),
        read_products=sum(read**2 * written for read, written in projected),
        layout=layout,
    )


def trunk_positions(rows: Iterable[Encoded]) -> tuple[int, int]:
    """Positions that the trunk computes for the rows, padding included, and in how many batches."""
    widths = Counter(map(batch_width, set(rows)))
    batches = {width: -(-count // TRUNK_BATCH_ROWS) for width, count in widths.items()}
    return sum(width * count * TRUNK_BATCH_ROWS for width, count in batches.items()), sum(batches.values())


def kept_positions(rows: Iterable[Encoded], layout: Layout) -> int:
    """Positions whose activations the trunk keeps."""
    return sum(positions(row, layout) for row in set(rows))


def whole_passes(rows: Sequence[Encoded]) -> list[ForwardPass]:
    """Passes that measure rows, those of one length together."""
    ordered = sorted(rows, key=lambda row: len(row.ids))
    return [
        one_pass(ordered[start : start + TRUNK_BATCH_ROWS], "padded")
        for start in range(0, len(ordered), TRUNK_BATCH_ROWS)
    ]


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
