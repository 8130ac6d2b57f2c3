"""Tensors of a loaded model in place of files, for a model that was never saved or was changed since it was loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import PreTrainedModel

from factpatch.models.checkpoints.folder import Checkpoint
from factpatch.models.checkpoints.headers import TensorEntry

TYPE_NAMES = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16", torch.uint16: "U16",
    torch.int32: "I32", torch.uint32: "U32", torch.int64: "I64", torch.uint64: "U64", torch.complex64: "C64",
    torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class MemoryTensor(TensorEntry):
    """A tensor that lies in memory alone; it changes with the model."""

    value: torch.Tensor = field(kw_only=True)


def memory_checkpoint(model: PreTrainedModel, name: str) -> Checkpoint:
    """What `save_pretrained` would write of a model whose class renames and joins nothing: each tensor once."""
    first: dict[int, str] = {}
    tensors: dict[str, TensorEntry] = {}
    for key, value in model.state_dict(keep_vars=True).items():
        if first.setdefault(id(value), key) == key:  # tied ones stand under the first of their names
            held = value.detach()
            tensors[key] = MemoryTensor(Path(name), TYPE_NAMES[held.dtype], tuple(held.shape), 0, 0, value=held)
    return Checkpoint(Path(name), tensors, in_memory=True)
