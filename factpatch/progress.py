"""Progress of long work: a bar with an ETA on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

Progress = Callable[[int, int], None]  # is told how much is done, and of how much
Report = Callable[[int, int, str], None]  # the same with a word on it

PLAIN_INTERVAL = 30.0  # seconds between plain lines


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
    with Bar(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=1, note="")

        def report(done: int, total: int, note: str = "") -> None:
            progress.update(task, completed=done, total=total, note=note)

        yield report


def _lines(label: str) -> Iterator[Callable[..., None]]:
    """A thread writes them, so that a part that reports nothing for long is not silent."""
    start, over = time.monotonic(), threading.Event()
    told, begun, first = (0, 0, "", start), start, 0

    def report(done: int, total: int, note: str = "") -> None:
        nonlocal told, begun, first
        now = time.monotonic()
        if total != told[1]:  # another part of the work, and of another pace
            begun, first = now, done
        told = (done, total, note, now)

    def write() -> None:
        while not over.wait(PLAIN_INTERVAL):
            (done, total, note, then), now = told, time.monotonic()
            known = f"{done}/{total}" if total else f"{now - start:.0f} s"
            if done > first:
                left = (then - begun) * (total - done) / (done - first) - (now - then)
                known += f", about {max(left, 0):.0f} s left"
            print(f"{label}: {known} {note}".rstrip(), file=sys.stderr, flush=True)

    print(label, file=sys.stderr, flush=True)
    writer = threading.Thread(target=write, name=f"progress of {label}", daemon=True)
    writer.start()
    try:
        yield report
    finally:
        over.set()
        writer.join()
    print(f"{label}: done in {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
