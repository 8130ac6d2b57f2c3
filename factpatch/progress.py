"""Progress of long work: a bar with an ETA on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

PLAIN_INTERVAL = 10.0  # seconds between plain lines


@contextmanager
def show_progress(label: str) -> Iterator[Callable[..., None]]:
    """Yields `report(done, total, note="")` and shows what it is told, on standard error."""
    if sys.stderr.isatty():
        yield from _bar(label)
    else:
        yield from _lines(label)


def _bar(label: str) -> Iterator[Callable[..., None]]:
    from rich.console import Console

    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=1, note="")

        def report(done: int, total: int, note: str = "") -> None:
            progress.update(task, completed=done, total=total, note=note)

        yield report


def _lines(label: str) -> Iterator[Callable[..., None]]:
    start = last = begun = time.monotonic()
    first, counted = 0, 0

    def report(done: int, total: int, note: str = "") -> None:
        nonlocal last, begun, first, counted
        now = time.monotonic()
        if counted and total != counted:  # another part of the work, and of another pace
            begun, first = now, done - 1
        counted = total
        if now - last >= PLAIN_INTERVAL:
            last = now
            left = (now - begun) * (total - done) / max(done - first, 1)
            print(f"{label}: {done}/{total}, about {left:.0f} s left {note}".rstrip(), file=sys.stderr, flush=True)

    print(label, file=sys.stderr, flush=True)
    yield report
    print(f"{label}: done in {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
