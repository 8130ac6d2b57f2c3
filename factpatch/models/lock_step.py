"""Many passes through one model side by side, block by block: a decoder block is in memory once for all of them.

Each pass is a thread, and only one of them runs at a time: a pass stops before a block that must be read, until the
others have come there too. So the model's own code stays in charge of every pass, and gives what it gives alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar, cast

import torch

Found = TypeVar("Found")

_own = threading.local()  # the pass that a thread runs


class _Cancelled(BaseException):
    """Another pass failed, so this one ends where it stands."""


class Pass(Generic[Found]):
    """One of the passes: where it stands, and what it gave."""

    def __init__(self, work: Callable[[], Found]) -> None:
        self._work, self._gradients, self._threads = work, torch.is_grad_enabled(), torch.get_num_threads()
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._cancelled = False
        self.block: int | None = None  # that it waits for
        self.done = False
        self.error: BaseException | None = None
        self.found: Found | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def advance(self) -> None:
        """Let it run to the next block that must be read, or to its end."""
        self._go.release()
        self._stopped.acquire()

    def cancel(self) -> None:
        """End it."""
        self._cancelled = True
        if not self.done:
            self.advance()

    def wait_for(self, block: int) -> None:
        """Called by the pass itself: stop until the block is in memory."""
        self.block = block
        self._stopped.release()
        self._go.acquire()
        if self._cancelled:
            raise _Cancelled

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self._cancelled:
                _own.running = self
                torch.set_num_threads(self._threads)
                with torch.set_grad_enabled(self._gradients):
                    self.found = self._work()
        except BaseException as error:  # handed to whoever waits for all passes
            self.error = error
        finally:
            self.done = True
            self._stopped.release()


def running_pass() -> Pass[Any] | None:
    """The pass that the present thread runs."""
    return getattr(_own, "running", None)


def in_lock_step(
    works: Sequence[Callable[[], Found]],
    blocks: int,
    in_memory: Callable[[int], AbstractContextManager[None]],
) -> list[Found]:
    """What each piece of work gives. `in_memory` holds one of the `blocks` decoder blocks while they all pass it."""
    passes = [Pass(work) for work in works]
    try:
        for own in passes:
            own.advance()
        while left := [own for own in passes if not own.done]:
            for block in range(blocks):
                there = [own for own in left if not own.done and own.block == block]
                if not there:
                    continue
                with in_memory(block):
                    for own in there:
                        own.advance()
            _raise_first(passes)
        _raise_first(passes)
    finally:
        for own in passes:
            own.cancel()
    return [cast(Found, own.found) for own in passes]


def _raise_first(passes: Sequence[Pass[Found]]) -> None:
    for own in passes:
        if own.error is not None:
            raise own.error
