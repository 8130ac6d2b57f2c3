"""Progress where there is no terminal."""

from __future__ import annotations

import time

from factpatch import progress
from factpatch.progress import show_progress


def test_a_part_that_reports_nothing_for_long_is_not_silent(monkeypatch, capsys):
    monkeypatch.setattr(progress, "PLAIN_INTERVAL", 0.05)
    with show_progress("search"):
        time.sleep(0.2)
    first, *between, last = capsys.readouterr().err.splitlines()
    assert first == "search"
    assert between
    assert all(line.startswith("search: ") for line in between)
    assert last.startswith("search: done in ")


def test_lines_say_how_far_it_is_and_come_at_most_once_an_interval(monkeypatch, capsys):
    monkeypatch.setattr(progress, "PLAIN_INTERVAL", 0.1)
    with show_progress("search") as report:
        for done in range(1, 31):
            report(done, 60, "a note")
            time.sleep(0.01)
    between = capsys.readouterr().err.splitlines()[1:-1]
    assert 1 <= len(between) <= 4
    assert all("/60, about " in line and line.endswith("s left a note") for line in between)
