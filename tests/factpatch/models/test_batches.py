"""Which rows go through the model together, and which edits an epoch visits: rules that hold for any lengths."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from factpatch.methods.breadth_first.review_schedule import LONGEST_WAIT, ReviewSchedule
from factpatch.methods.optimizer import PADDING, SPARE, micro_batches

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=120)


@given(LENGTHS, st.none() | st.integers(1, 50), st.sampled_from(["packed", "padding-free", "padded"]))
def test_every_row_comes_once_in_groups_within_their_bounds(lengths, largest, layout):
    groups = micro_batches(lengths, largest, layout)
    assert sorted(place for group in groups for place in group) == list(range(len(lengths)))
    assert all(1 <= len(group) <= (largest or len(lengths)) for group in groups)
    if layout != "padded":
        assert [place for group in groups for place in group] == list(range(len(lengths)))
        assert len(groups) == math.ceil(len(lengths) / (largest or len(lengths)))
        return
    for group in groups:
        room = len(group) * max(lengths[place] for place in group)
        assert room - sum(lengths[place] for place in group) <= max(SPARE, PADDING * room)


def test_rows_are_split_only_where_padding_would_cost_more():
    assert micro_batches([7] * 5, None, "padded") == [[0, 1, 2, 3, 4]]
    assert micro_batches([7] * 5, 2, "padded") == [[0, 1], [2, 3], [4]]
    assert micro_batches([1, 9, 10], None, "padded") == [[2, 1, 0]]
    assert micro_batches([1, 900, 1000], None, "padded") == [[2, 1], [0]]


@given(st.integers(1, 12), st.randoms(use_true_random=False))
def test_no_edit_is_forgotten(count, random):
    """Whatever visits find, each edit comes again within LONGEST_WAIT + 1 epochs, and in the next if not learnt."""
    reviews = ReviewSchedule.start(count, confidence=0.9)
    last, learnt = [-1] * count, [False] * count
    for epoch in range(40):
        due = reviews.due(epoch).tolist()
        assert set(due) >= {edit for edit in range(count) if not learnt[edit]}
        for edit in range(count):
            assert epoch - last[edit] <= LONGEST_WAIT + 1 if edit in due else epoch - last[edit] < LONGEST_WAIT + 1
        for edit in due:
            last[edit], learnt[edit] = epoch, random.random() < 0.8
        hardest_B = torch.tensor([0.0 if learnt[edit] else 5.0 for edit in due])
        reviews.note(torch.tensor(due, dtype=torch.long), hardest_B, epoch)
        assert reviews.unsure().tolist() == [edit for edit in range(count) if not learnt[edit]]


def test_waits_double_and_fall_back():
    reviews = ReviewSchedule.start(1, confidence=0.9)
    edit, visits = torch.tensor([0]), []
    for epoch in range(40):
        if len(reviews.due(epoch)):
            visits.append(epoch)
            reviews.note(edit, torch.tensor([5.0 if epoch == 19 else 0.1]), epoch)
    assert visits == [0, 2, 5, 10, 19, 20, 22, 25, 30, 39]


def test_of_too_many_the_least_learnt_are_visited():
    reviews = ReviewSchedule.start(5, confidence=0.9)
    reviews.note(torch.arange(4), torch.tensor([0.3, 5.0, 0.01, 0.4]), 0)
    assert reviews.hardest(torch.arange(4), 2).tolist() == [1, 3]
    assert reviews.hardest(torch.tensor([2, 0]), 5).tolist() == [0, 2]
    assert reviews.hardest(torch.arange(5), 1).tolist() == [4]  # never visited


def test_of_what_an_earlier_run_learnt_the_least_steady_come_first_then_all_in_turn():
    reviews = ReviewSchedule.start(6, confidence=0.98)
    reviews.note(torch.arange(6), -torch.tensor([0.99, 0.7, 0.9, 0.3, 0.6, 0.95]).log(), -1)
    reviews.line_up(torch.Generator().manual_seed(0))
    assert reviews.due(0).tolist() == reviews.wrong().tolist() == [3]
    assert reviews.unsteady().tolist() == [1, 3, 4]
    first = reviews.turns(3)
    assert first.tolist()[:2] == [4, 1]
    reviews.note(first, -torch.full((3,), 0.9).log(), 0)  # to the end of the line
    second = reviews.turns(2)
    assert sorted([first.tolist()[2], *second.tolist()]) == [0, 2, 5]
    reviews.note(second[:1], -torch.tensor([0.4]).log(), 0)
    assert second[0] in reviews.due(1)
    assert second[0] not in reviews.turns(6)
