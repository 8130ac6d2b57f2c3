"""Work in batches, which halve when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from factpatch.errors import RefusedError

Item = TypeVar("Item")
Found = TypeVar("Found")


def in_batches(
    work: Callable[[Sequence[Item]], Found], items: Sequence[Item], size: int
) -> Iterator[tuple[Sequence[Item], Found]]:
    """Batches of `size` items in order, each with what `work` gives for it. When memory runs out, the batch and all
    later ones have half as many."""
    start = 0
    while start < len(items):
        batch = items[start : start + size]
        found, count = within_memory(work, batch)
        if count < len(batch):
            size = count
        yield batch[:count], found
        start += count


def within_memory(work: Callable[[Sequence[Item]], Found], items: Sequence[Item]) -> tuple[Found, int]:
    """What `work` gives for all items, or for the first half, quarter, ... where memory runs out; and for how many.

    RefusedError where memory runs out with one item.
    """
    size = len(items)
    while True:
        try:
            return work(items[:size]), size
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if size == 1:
                raise RefusedError(
                    "memory runs out with a single row in a batch; use a smaller model.dtype, another location or a "
                    "machine with more memory"
                ) from error
        size //= 2  # here nothing holds what the failed attempt had made
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Is this how a machine says that memory ran out?"""
    text = str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in text
