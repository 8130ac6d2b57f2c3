"""GPTQ (arXiv 2210.17323): 4-bit values chosen column by column, each making up for what rounding the ones before lost.

As llm-compressor does by default: symmetric, scales of groups taken from the weights as they are, the columns that
texts use most first, and block by block, so that each block reads what the quantized ones before it write.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from factpatch.models.linear import is_projection, is_transposed
from factpatch.models.loading import LoadedModel, preserved, write_values
from factpatch.models.locations import decoder_blocks

DAMPING = 0.01  # of the moment's mean diagonal, added to it
AT_ONCE = 128  # columns, after which the others are made up for together


def gptq_values(loaded: LoadedModel, rows_NT: torch.Tensor, group: int) -> dict[str, torch.Tensor]:
    """What every parameter becomes when the projections of a bf16 checkpoint are quantized by rows of ids."""
    model = loaded.model
    found = dict(model.named_parameters())
    _, blocks = decoder_blocks(model)
    with preserved(model, tuple(found)), torch.no_grad():
        write_values(model, {name: value.bfloat16() for name, value in found.items()})
        hooks = [block.register_forward_pre_hook(partial(_quantize_block, group), with_kwargs=True) for block in blocks]
        try:
            model.base_model(input_ids=rows_NT.to(model.device), use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        return {name: value.detach().clone() for name, value in found.items()}


def _quantize_block(group: int, block: nn.Module, inputs: tuple[object, ...], options: dict[str, object]) -> None:
    """Quantize a block's projections by what they read of its inputs, before the block itself is run."""
    projections = [module for module in block.modules() if is_projection(module)]
    moments: dict[nn.Module, torch.Tensor] = {}

    def read(module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        read_PC = given[0].flatten(0, -2).float()
        moments[module] = moments.get(module, 0) + read_PC.T @ read_PC

    hooks = [module.register_forward_pre_hook(read) for module in projections]
    try:
        block.forward(*inputs, **options)
    finally:
        for hook in hooks:
            hook.remove()
    for module, moment_CC in moments.items():
        weight = module.get_parameter("weight")
        turned = is_transposed(module)
        made = rounded_columns((weight.T if turned else weight).float(), moment_CC, group)
        weight.copy_(made.T if turned else made)


def rounded_columns(weight_RC: torch.Tensor, moment_CC: torch.Tensor, group: int) -> torch.Tensor:
    """What a matrix becomes of which `group` numbers of a row share a scale (-1: all), given the second moment of what
    it reads."""
    columns = len(moment_CC)
    size = columns if group < 0 else group
    scale_RG = (weight_RC.unflatten(1, (-1, size)).abs().amax(-1) / 7.5).bfloat16().float()
    scale_RC = scale_RG.where(scale_RG > 0, 1.0).repeat_interleave(size, 1)
    order = moment_CC.diagonal().argsort(descending=True, stable=True)
    left_RC, scale_RC, moment_CC = weight_RC[:, order], scale_RC[:, order], moment_CC[order][:, order]
    mean = moment_CC.diagonal().mean()
    damped_CC = moment_CC + (DAMPING * mean if mean > 0 else 1.0) * torch.eye(columns, device=moment_CC.device)
    inverse_CC = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped_CC)), upper=True)
    made_RC = torch.empty_like(left_RC)
    for start in range(0, columns, AT_ONCE):
        end = min(start + AT_ONCE, columns)
        errors = []
        for at in range(start, end):
            made_RC[:, at] = (left_RC[:, at] / scale_RC[:, at]).round().clamp(-8, 7) * scale_RC[:, at]
            errors.append((left_RC[:, at] - made_RC[:, at]) / inverse_CC[at, at])
            left_RC[:, at:end] -= torch.outer(errors[-1], inverse_CC[at, at:end])
        left_RC[:, end:] -= torch.stack(errors, 1) @ inverse_CC[start:end, end:]
    return made_RC[:, order.argsort()]
