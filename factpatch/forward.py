"""One forward pass over prompts with their targets: logits only where a target token is predicted.

Shape suffixes: B rows, T tokens of the longest row, K tokens of the longest target (EOS included), V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from factpatch.encoding import Encoded


@dataclass(frozen=True)
class Batch:
    """Left-padded rows, so that all targets end at the last position; padding is hidden by the attention mask.

    `target_BK` holds the target's ids, right-aligned; `target_mask_BK` says which of its places are real.
    """

    ids_BT: torch.Tensor
    attention_BT: torch.Tensor
    positions_BT: torch.Tensor
    target_BK: torch.Tensor
    target_mask_BK: torch.Tensor


def collate(rows: Sequence[Encoded], pad: int, device: torch.device | str = "cpu") -> Batch:
    """Pad rows on the left to the longest with an existing id."""
    tokens = max(len(row.ids) for row in rows)
    kept = max(len(row.ids) - row.prompt_length for row in rows)
    ids_BT = torch.full((len(rows), tokens), pad)
    attention_BT = torch.zeros((len(rows), tokens), dtype=torch.long)
    target_mask_BK = torch.zeros((len(rows), kept), dtype=torch.bool)
    for index, row in enumerate(rows):
        ids_BT[index, tokens - len(row.ids) :] = torch.tensor(row.ids)
        attention_BT[index, tokens - len(row.ids) :] = 1
        target_mask_BK[index, kept - len(row.ids) + row.prompt_length :] = True
    positions_BT = (attention_BT.cumsum(1) - 1).clamp(min=0)
    tensors = (ids_BT, attention_BT, positions_BT, ids_BT[:, tokens - kept :].clone(), target_mask_BK)
    return Batch(*(tensor.to(device) for tensor in tensors))


def target_logits(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """`logits_BKV`: at [b, k] the prediction of `target_BK[b, k]`."""
    kept = batch.target_BK.shape[1]
    wishes = {"position_ids": batch.positions_BT, "logits_to_keep": kept + 1}
    known = inspect.signature(model.forward).parameters
    options = {name: value for name, value in wishes.items() if name in known}
    output = model(input_ids=batch.ids_BT, attention_mask=batch.attention_BT, use_cache=False, **options)
    return output.logits[:, -kept - 1 : -1]


def edit_losses(logits_BKV: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Each row's loss (B): the mean cross-entropy over its target tokens, EOS included."""
    loss_BK = functional.cross_entropy(logits_BKV.float().transpose(1, 2), batch.target_BK, reduction="none")
    mask_BK = batch.target_mask_BK
    return loss_BK.masked_fill(~mask_BK, 0.0).sum(1) / mask_BK.sum(1)
