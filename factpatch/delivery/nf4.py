"""4-bit NormalFloat (NF4 of QLoRA, arXiv 2305.14314), as transformers loads a model with bitsandbytes."""

from __future__ import annotations

from collections.abc import Callable

import torch

from factpatch.models.linear import is_projection_weight, owner_of
from factpatch.models.loading import LoadedModel


def nf4_rows(loaded: LoadedModel) -> Callable[[str, torch.Tensor], torch.Tensor]:
    """Gives for a parameter's name and its values, a row for each number that is written, what NF4 makes of them. As in
    transformers that is every linear projection but the output matrix; all else stays."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit  # of an extra; `factpatch doctor` looks for it

    model = loaded.model
    last = model.get_output_embeddings()

    def given_back(name: str, rows: torch.Tensor) -> torch.Tensor:
        if not is_projection_weight(model, name) or owner_of(model, name) is last:
            return rows
        return dequantize_4bit(*quantize_4bit(rows.contiguous(), quant_type="nf4"))

    return given_back
