"""The tensors of a patch's file: whole values, or in their place the low-rank factors that they can be made from."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from factpatch.models.checkpoints.tensors import same_bits
from factpatch.models.low_rank import Factors, with_difference

READING, WRITING = ".lora_A", ".lora_B"  # after the name of the tensor whose difference they make


def exact_factors(
    new: Mapping[str, torch.Tensor], old: Mapping[str, torch.Tensor], factors: Mapping[str, Factors]
) -> dict[str, Factors]:
    """Those factors that give the new values from the old ones bit for bit, on the CPU; others are of no use to a
    patch, such as those of a run that began with other values than the base model's."""
    found = {}
    for name in new.keys() & factors.keys():
        reading, writing = (factor.detach().cpu().contiguous() for factor in factors[name])
        shape = (*writing.shape[:-1], reading.shape[-1])
        if old[name].shape == shape and same_bits(_new(old[name], (reading, writing)), new[name]):
            found[name] = reading, writing
    return found


def packed(new: Mapping[str, torch.Tensor], factors: Mapping[str, Factors]) -> dict[str, torch.Tensor]:
    """The tensors that the file holds."""
    tensors = {name: value for name, value in new.items() if name not in factors}
    for name, (reading, writing) in factors.items():
        tensors |= {name + READING: reading, name + WRITING: writing}
    return tensors


def unpacked(
    tensors: Mapping[str, torch.Tensor], old: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], dict[str, Factors]]:
    """The new values, and the factors that some of them were made from."""
    factors = {
        name: (tensors[name + READING], tensors[name + WRITING])
        for name in old
        if name not in tensors and {name + READING, name + WRITING} <= tensors.keys()
    }
    made = {name + end for name in factors for end in (READING, WRITING)}
    whole = {name: value for name, value in tensors.items() if name not in made}
    return whole | {name: _new(old[name], pair) for name, pair in factors.items()}, factors


def _new(old: torch.Tensor, factors: Factors) -> torch.Tensor:
    return with_difference(old, factors).to(old.dtype)
