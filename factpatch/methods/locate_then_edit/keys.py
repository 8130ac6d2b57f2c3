"""What a layer's MLP is asked at the subject's last token (keys), and what the layers have answered there so far.

Shape suffixes: N edits, B rows, I width that a projection reads, W the model's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from factpatch.methods.locate_then_edit.contexts import Contexts
from factpatch.models.batches import in_batches
from factpatch.models.encoding import Encoded, padding_id
from factpatch.models.forward import Batch, collate, supported
from factpatch.models.loading import LoadedModel

ROWS_AT_ONCE = 64  # of a pass without gradients


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


def keys_and_values(
    loaded: LoadedModel, projections: Sequence[nn.Module], block: nn.Module, edits: Sequence[Contexts]
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Each projection's keys (N, I) in double precision, a half of the prompt alone and a half of the mean behind the
    prefixes; and what the block returns (N, W) for the prompt alone."""
    rows = [row for edit in edits for row in edit.keys]

    def ask(part: Sequence[Encoded]) -> tuple[list[torch.Tensor], torch.Tensor]:
        batch = collate(part, padding_id(loaded.tokenizer), loaded.model.device)
        read, returned = read_up_to(loaded, projections, block, batch)
        return [each[:, -1].double() for each in read], returned[:, -1].float()

    parts = [found for _, found in in_batches(ask, rows, ROWS_AT_ONCE)]
    keys = []
    for number in range(len(projections)):
        key_NCI = torch.cat([read[number] for read, _ in parts]).unflatten(0, (len(edits), -1))
        alone_NI, behind_NCI = key_NCI[:, 0], key_NCI[:, 1:]
        keys.append((alone_NI + behind_NCI.mean(1)) / 2 if behind_NCI.shape[1] else alone_NI)
    return keys, torch.cat([returned for _, returned in parts]).unflatten(0, (len(edits), -1))[:, 0]
