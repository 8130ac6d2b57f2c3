"""4-bit NormalFloat (NF4 of QLoRA, arXiv 2305.14314), as transformers loads a model with bitsandbytes."""

from __future__ import annotations

from collections.abc import Callable

import torch

from factpatch.models.linear import is_projection_weight, is_transposed
from factpatch.models.loading import LoadedModel


def nf4_values(loaded: LoadedModel) -> Callable[[str, torch.Tensor], torch.Tensor]:
    """Gives for a parameter's name and values what NF4 makes of them, in their dtype. As in transformers that is every
    linear projection but the output matrix; all else stays."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit  # of an extra; `factpatch doctor` looks for it

    model = loaded.model
    last = model.get_output_embeddings()

    def served(name: str, value: torch.Tensor) -> torch.Tensor:
        module = model.get_submodule(name.rpartition(".")[0])
        if not is_projection_weight(model, name) or module is last:
            return value
        turned = is_transposed(module)
        rows = value.detach().T if turned else value.detach()
        made = dequantize_4bit(*quantize_4bit(rows.contiguous(), quant_type="nf4"))
        return (made.T if turned else made).to(value)

    return served
