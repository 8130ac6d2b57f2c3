"""Kept activations of many rows: flat tensors, in memory or mapped from disk, and batches cut from them.

Shape suffixes: B rows of a batch, T positions of the longest, P positions of all rows one after the other, W width of
a site.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy
import torch

Shard = Mapping[str, torch.Tensor]  # each site's activations (positions, W)


@dataclass(frozen=True)
class Activations:
    """For each row the shard that holds it, where it starts there, and how many positions it has."""

    shards: Sequence[Shard]
    shard_R: numpy.ndarray
    start_R: numpy.ndarray
    length_R: numpy.ndarray

    @staticmethod
    def of_shard(shard: Shard, lengths: Sequence[int]) -> Activations:
        """Rows that lie one after the other in one shard."""
        length_R = numpy.array(lengths, dtype=numpy.int64)
        return Activations([shard], numpy.zeros_like(length_R), numpy.cumsum(length_R) - length_R, length_R)

    def __len__(self) -> int:
        return len(self.length_R)

    @property
    def bytes(self) -> int:
        """Size of all shards."""
        return sum(tensor.nbytes for shard in self.shards for tensor in shard.values())

    def select(self, rows: Sequence[int]) -> Activations:
        """Some of the rows, in the order asked for; nothing is copied."""
        index = numpy.asarray(rows, dtype=numpy.int64)
        return Activations(self.shards, self.shard_R[index], self.start_R[index], self.length_R[index])

    def packed(self, device: torch.device) -> dict[str, torch.Tensor]:
        """Each site's activations (1, P, W)."""
        places = numpy.cumsum(self.length_R) - self.length_R
        return self._gather(places, (1, int(self.length_R.sum())), device)

    def padded(self, width: int, device: torch.device) -> dict[str, torch.Tensor]:
        """Each site's activations (B, T, W), T = `width`, rows ending at the last position, zeros before them."""
        places = numpy.arange(1, len(self) + 1) * width - self.length_R
        return self._gather(places, (len(self), width), device)

    def _gather(self, places: numpy.ndarray, shape: tuple[int, int], device: torch.device) -> dict[str, torch.Tensor]:
        """Row r goes to the flat positions from `places[r]` on."""
        used = numpy.unique(self.shard_R)
        gathered = {}
        for site, like in self.shards[used[0]].items():
            flat = torch.zeros((shape[0] * shape[1], like.shape[1]), dtype=like.dtype, device=device)
            for number in used:
                rows = numpy.flatnonzero(self.shard_R == number)
                source = _ranges(self.start_R[rows], self.length_R[rows])
                target = _ranges(places[rows], self.length_R[rows]).to(device)
                flat[target] = self.shards[number][site][source].to(device)
            gathered[site] = flat.view(*shape, -1)
        return gathered


def _ranges(start: numpy.ndarray, length: numpy.ndarray) -> torch.Tensor:
    """The numbers start, start + 1, …, for each of several ranges, one after the other."""
    offsets = numpy.repeat(start - (numpy.cumsum(length) - length), length)
    return torch.from_numpy(offsets + numpy.arange(int(length.sum())))
