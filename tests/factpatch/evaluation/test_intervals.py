"""Wilson intervals and shares."""

import pytest

from factpatch.evaluation.intervals import share, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_agrees_with_published_values(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (3, 2), (-1, 4)])
def test_wilson_refuses_what_is_no_share(successes, n):
    with pytest.raises(ValueError, match="no share"):
        wilson(successes, n)


def test_share_counts_and_averages():
    result = share([True, False, True, True], "unused")
    assert (result["value"], result["n"]) == (0.75, 4)
    assert result["ci95"][0] < 0.75 < result["ci95"][1]


def test_share_of_nothing_is_null_with_a_reason():
    assert share([], "no probes") == {"value": None, "n": 0, "ci95": None, "reason": "no probes"}
