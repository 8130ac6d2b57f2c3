"""What `factpatch history` prints of moves of a champion."""

from flows.history import describe_history
from tasks.promote import Move


def test_a_move_is_a_line_that_says_when_what_who_and_why():
    moves = [
        Move("promote", "1", None, "ann, automatically", "2026-05-04T10:11:12.345678Z", "every gate passed", done=True),
        Move("rollback", "1", "2", "ben", "2026-05-05T08:00:00.000001Z", "the ministry\nobjects"),
    ]
    assert describe_history("atlas", moves) == [
        "2026-05-04T10:11:12Z  promote   - -> 1  ann, automatically: every gate passed",
        '2026-05-05T08:00:00Z  rollback  2 -> 1  "ben: the ministry\\nobjects"  (cut short)',
    ]


def test_a_model_whose_champion_never_moved_says_so():
    assert describe_history("atlas", []) == ["no version of 'atlas' was promoted yet"]
