"""Linear projections at a location, for methods that compute with what a matrix reads and writes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from factpatch.errors import InputError
from factpatch.models.forward import Batch, supported
from factpatch.models.linear import is_projection_weight, is_transposed, owner_of
from factpatch.models.loading import LoadedModel
from factpatch.models.locations import Location, decoder_blocks, roles


def projections(model: PreTrainedModel, location: Location) -> list[nn.Module]:
    """The modules whose weights are located, in the order of `location.parameters`."""
    return [owner_of(model, name) for name in location.parameters]


def as_stored(projection: nn.Module, change_OI: torch.Tensor) -> torch.Tensor:
    """A change of a projection's matrix (width written, width read) as its weight holds it: GPT-2's are transposed."""
    return change_OI.T if is_transposed(projection) else change_OI


def refuse_but_projections(method: str, model: PreTrainedModel, location: Location) -> None:
    """InputError where a located tensor is not the weight of a linear projection, as stacks of experts are not."""
    for name in location.parameters:
        if not is_projection_weight(model, name):
            raise InputError(
                f"training method '{method}' writes into linear projections, and {name} at '{location.name}' is none; "
                "choose another location or method"
            )


def refuse_but_down(method: str, model: PreTrainedModel, location: Location) -> None:
    """InputError unless the location is the MLP's output projection of each of its layers."""
    refuse_but_projections(method, model, location)
    stack, _ = decoder_blocks(model)
    wanted = [f"{stack}.{layer}.{roles(model, layer).get('down')}.weight" for layer in location.layers]
    if list(location.parameters) != wanted:
        span = location.name.partition(":")[0]
        raise InputError(
            f"training method '{method}' writes into the MLP's output projection of each layer and nothing else; "
            f"location '{location.name}' is not that: name {span}:down"
        )


class _FarEnough(Exception):
    """The rest of the pass is not needed."""


def hidden_of(output: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The hidden states among what a decoder block returns."""
    return output[0] if isinstance(output, tuple) else output


def read_up_to(
    loaded: LoadedModel, projections: Sequence[nn.Module], block: nn.Module, batch: Batch
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """What each projection reads, and what the block above them returns, of a pass that ends there."""
    read: dict[nn.Module, torch.Tensor] = {}
    returned: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        read[module] = inputs[0]

    def end(module: nn.Module, inputs: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        returned.append(hidden_of(output))
        raise _FarEnough

    decoder: Any = loaded.model.base_model
    ids_BT, attention_BT = batch.ids_BT[:, :-1], batch.attention_BT[:, :-1]
    hooks = [projection.register_forward_pre_hook(keep) for projection in projections]
    hooks.append(block.register_forward_hook(end))
    try:
        with torch.no_grad(), suppress(_FarEnough):
            options = supported(decoder, position_ids=batch.positions_BT[:, :-1])
            decoder(input_ids=ids_BT, attention_mask=attention_BT, use_cache=False, **options)
    finally:
        for hook in hooks:
            hook.remove()
    return [read[projection] for projection in projections], returned[0]
