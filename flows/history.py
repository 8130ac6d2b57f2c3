"""The history of a registered model as lines to print: every move of its champion, when, by whom and why."""

from __future__ import annotations

from collections.abc import Sequence

from flows.console import printable
from tasks.promote import Move


def describe_history(name: str, moves: Sequence[Move]) -> list[str]:
    """A line for each move of the model's champion, in their order; or one that says that there was none."""
    return [_line(move) for move in moves] or [f"no version of '{name}' was promoted yet"]


def _line(move: Move) -> str:
    said = printable(f"{move.who}: {move.why}")
    note = "" if move.done else "  (cut short)"
    return f"{move.when[:19]}Z  {move.action:<8}  {move.before or '-'} -> {move.version}  {said}{note}"
