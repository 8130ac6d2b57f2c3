"""Work in batches, which halve when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import torch
from transformers import PreTrainedModel

from factpatch.errors import RefusedError
from factpatch.models.placement import BlockStream, stream_of

Item = TypeVar("Item")
Found = TypeVar("Found")


def in_batches(
    work: Callable[[Sequence[Item]], Found], items: Sequence[Item], size: int, model: PreTrainedModel | None = None
) -> Iterator[tuple[Sequence[Item], Found]]:
    """Batches of `size` items in order, each with what `work` gives for it. When memory runs out, the batch and all
    later ones have half as many. Batches that pass a `model` which is streamed go through it in lock-step, as many at
    once as memory takes."""
    if model is not None and (stream := stream_of(model)):
        yield from _in_lock_step(stream, work, items, size)
        return
    start = 0
    while start < len(items):
        batch = items[start : start + size]
        found, count = within_memory(work, batch)
        if count < len(batch):
            size = count
        yield batch[:count], found
        start += count


def _in_lock_step(
    stream: BlockStream, work: Callable[[Sequence[Item]], Found], items: Sequence[Item], size: int
) -> Iterator[tuple[Sequence[Item], Found]]:
    """The same batches, through a streamed model; of one that memory did not take, the rest follows it."""
    batches = [items[start : start + size] for start in range(0, len(items), size)]
    at_once = max(1, stream.rows_at_once() // size)
    for start in range(0, len(batches), at_once):
        together = batches[start : start + at_once]
        results = stream.side_by_side([partial(within_memory, work, batch) for batch in together])
        for batch, (found, count) in zip(together, results, strict=True):
            yield batch[:count], found
            yield from in_batches(work, batch[count:], count)


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
