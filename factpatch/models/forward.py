"""One forward pass over prompts with their targets: logits only where a target token is predicted.

Shape suffixes: B rows, T tokens of the longest row, K tokens of the longest target (EOS included), P positions that
predict, one row's after the other's, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from factpatch.models.encoding import Encoded
from factpatch.models.locations import decoder_blocks
from factpatch.models.shadowing import shadowed


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


@dataclass(frozen=True)
class Predictions:
    """What the model predicts where target tokens are due.

    `row_P` is the row (0 to `rows` - 1) that a position belongs to, `real_P` whether it is one at all or padding.
    """

    logits_PV: torch.Tensor
    target_P: torch.Tensor
    row_P: torch.Tensor
    real_P: torch.Tensor
    rows: int


def collate(rows: Sequence[Encoded], pad: int, device: torch.device | str = "cpu", width: int = 0) -> Batch:
    """Pad rows on the left, with an existing id, to the longest or to `width` tokens."""
    tokens = max(width, *(len(row.ids) for row in rows))
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
    """`logits_BKV`: at [b, k] the prediction of `target_BK[b, k]`. The last token predicts nothing and is left out."""
    ids_BT, attention_BT = batch.ids_BT[:, :-1], batch.attention_BT[:, :-1]
    width, kept = ids_BT.shape[1], batch.target_BK.shape[1]
    # by index, where a model takes one: a slice of the hidden states would not be contiguous, and the product with the
    # vocabulary, most of a small head side's work, would run row by row
    last = torch.arange(width - kept, width, device=ids_BT.device) if logits_by_index(model) else kept
    options = supported(model, position_ids=batch.positions_BT[:, :-1], logits_to_keep=last)
    logits_BTV = model(input_ids=ids_BT, attention_mask=attention_BT, use_cache=False, **options).logits
    return logits_BTV if logits_BTV.shape[1] == kept else logits_BTV[:, -kept:]


def logits_by_index(model: PreTrainedModel) -> bool:
    """Can the model be asked for logits at some positions, named by their indices?"""
    parameter = inspect.signature(model.forward).parameters.get("logits_to_keep")
    return parameter is not None and "Tensor" in str(parameter.annotation)


def supported(model: PreTrainedModel, **options: object) -> dict[str, object]:
    """Those options that the model's forward has."""
    known = inspect.signature(model.forward).parameters
    return {name: value for name, value in options.items() if name in known}


@contextmanager
def only_tokens(model: PreTrainedModel, tokens_S: torch.Tensor | None) -> Iterator[None]:
    """Meanwhile the model computes logits of these tokens alone, in their order (S); None leaves it as it is."""
    head = model.get_output_embeddings()
    if tokens_S is None or head is None:
        yield
        return
    bias = getattr(head, "bias", None)
    weight_SW, bias_S = head.weight[tokens_S].detach(), None if bias is None else bias[tokens_S].detach()
    with shadowed(head, lambda hidden: functional.linear(hidden, weight_SW, bias_S)):
        yield


@contextmanager
def whole_head_product(model: PreTrainedModel) -> Iterator[None]:
    """Meanwhile the product with the vocabulary is one of matrices where logits of the last position alone are asked
    for, as `generate` asks: the slice of the hidden states is not contiguous, and torch would copy the output matrix
    once for every row, which takes longer than the whole model (100 times in bfloat16 on a CPU)."""
    head = model.get_output_embeddings()
    if head is None:
        yield
        return
    hook = head.register_forward_pre_hook(lambda _, inputs: tuple(given.contiguous() for given in inputs))
    try:
        yield
    finally:
        hook.remove()


def hidden_before(model: PreTrainedModel, layer: int, ids_BT: torch.Tensor, attention_BT: torch.Tensor) -> torch.Tensor:
    """What a decoder block is given, shape (B, T, width); the blocks from there on are not run."""
    _, blocks = decoder_blocks(model)
    found: list[torch.Tensor] = []

    def take(module: nn.Module, inputs: tuple[torch.Tensor, ...], options: dict[str, torch.Tensor]) -> None:
        found.append(inputs[0] if inputs else options["hidden_states"])
        raise _FarEnough

    hook = blocks[layer].register_forward_pre_hook(take, with_kwargs=True)
    try:
        with torch.no_grad(), suppress(_FarEnough):
            model.base_model(input_ids=ids_BT, attention_mask=attention_BT, use_cache=False)
    finally:
        hook.remove()
    return found[0]


class _FarEnough(Exception):
    """The rest of the pass is not needed."""


def predict_whole(model: PreTrainedModel, batch: Batch) -> Predictions:
    """A pass through the whole model."""
    return flatten(target_logits(model, batch), batch)


def flatten(logits_BKV: torch.Tensor, batch: Batch) -> Predictions:
    """Padded rows of predictions as one row of positions."""
    rows, kept = batch.target_BK.shape
    row_P = torch.arange(rows, device=logits_BKV.device).repeat_interleave(kept)
    return Predictions(logits_BKV.flatten(0, 1), batch.target_BK.flatten(), row_P, batch.target_mask_BK.flatten(), rows)


def token_losses(predictions: Predictions) -> torch.Tensor:
    """Cross-entropy at each position (P); zero at padding."""
    target_P = predictions.target_P.masked_fill(~predictions.real_P, -100)
    return functional.cross_entropy(predictions.logits_PV.float(), target_P, ignore_index=-100, reduction="none")


def edit_losses(predictions: Predictions, loss_P: torch.Tensor) -> torch.Tensor:
    """Each row's loss (B): the mean over its target tokens, EOS included."""
    sums_B = torch.zeros(predictions.rows, device=loss_P.device).index_add(0, predictions.row_P, loss_P)
    return sums_B / target_counts(predictions)


def target_counts(predictions: Predictions) -> torch.Tensor:
    """Target tokens of each row (B)."""
    return torch.bincount(predictions.row_P[predictions.real_P], minlength=predictions.rows)


def hardest(predictions: Predictions, loss_P: torch.Tensor) -> torch.Tensor:
    """The largest token loss of each row (B): -log of the probability of its least sure target token."""
    worst_B = torch.zeros(predictions.rows, device=loss_P.device)
    return worst_B.scatter_reduce(0, predictions.row_P, loss_P.detach(), "amax")
