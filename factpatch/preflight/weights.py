"""Whether a model's weights fit in memory, told by the headers of its files; where nobody says, a model that does not
fit is streamed."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import torch

from factpatch.models.loading import find_source, open_checkpoint
from factpatch.preflight.machine import available
from factpatch.settings.config import AUTO, ModelSettings

GIB = 2**30


def placed(settings: ModelSettings) -> ModelSettings:
    """The settings with a placement: what they say, or where that is `auto`, `memory` if the weights fit there, else
    `stream`, which is told."""
    if settings.placement != AUTO:
        return settings
    tensors = open_checkpoint(find_source(settings.path)).tensors.values()
    weights = sum(math.prod(entry.shape) for entry in tensors) * getattr(torch, settings.dtype).itemsize
    free = available(settings.device, ".", None)
    room = free.memory if free.accelerator is None else free.accelerator
    if weights <= room:
        return replace(settings, placement="memory")
    print(
        f"model '{settings.path}': its weights take {weights / GIB:.2f} GB, and {room / GIB:.2f} GB of memory are "
        "free; so model.placement is 'stream', which reads them from the files block by block",
        file=sys.stderr,
    )
    return replace(settings, placement="stream")
