"""Paired intervals against the numerical likelihood, the exact binomial, and simulation."""

import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

from factpatch.evaluation.intervals import Z95
from factpatch.evaluation.paired import bootstrap_interval, items_needed, least_items, relative_rise, score_interval


@pytest.mark.parametrize(("broken", "repaired", "n"), [(12, 2, 14), (9, 3, 14), (10, 1, 500), (3, 40, 100), (1, 1, 9)])
def test_at_its_ends_the_score_test_is_just_significant(broken, repaired, n):
    """The likeliest shares under each end are found by numerical search, independently of the closed form."""
    for end, sign in zip(score_interval(broken, repaired, n), (1, -1), strict=True):

        def unlikeliness(share, end=end):
            cells = ((broken, share + end), (repaired, share), (n - broken - repaired, 1 - 2 * share - end))
            return -sum(count * numpy.log(max(chance, 1e-300)) for count, chance in cells if count)

        bounds = (max(0.0, -end), (1 - end) / 2)
        share = minimize_scalar(unlikeliness, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
        statistic = (broken - repaired - n * end) / numpy.sqrt(n * (2 * share + end * (1 - end)))
        assert statistic == pytest.approx(sign * Z95, abs=1e-4)


def test_where_nothing_turned_the_ends_are_known():
    assert score_interval(0, 0, 30) == pytest.approx((-(Z95**2) / (30 + Z95**2), Z95**2 / (30 + Z95**2)))


@pytest.mark.parametrize(("broken", "repaired"), [(10, 0), (14, 5), (30, 20), (3, 9), (40, 12)])
def test_zero_is_inside_where_mcnemar_s_score_test_finds_nothing(broken, repaired):
    low, high = score_interval(broken, repaired, 500)
    assert low < (broken - repaired) / 500 < high
    statistic = (broken - repaired) ** 2 / (broken + repaired)
    assert (low <= 0 <= high) is (statistic <= 3.8415)
    if statistic > 10:
        assert binomtest(broken, broken + repaired).pvalue < 0.05


def test_the_other_way_round_it_is_the_mirror_image():
    low, high = score_interval(14, 5, 200)
    assert score_interval(5, 14, 200) == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.parametrize(("broken", "repaired", "n"), [(1, 0, 0), (3, 3, 5), (-1, 0, 5)])
def test_impossible_counts_are_refused(broken, repaired, n):
    with pytest.raises(ValueError, match="broken"):
        score_interval(broken, repaired, n)


@pytest.mark.parametrize(("broken", "repaired"), [(0.05, 0.0), (0.07, 0.02), (0.02, 0.02)])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(broken, repaired):
    draws = numpy.random.default_rng(1).multinomial(200, (broken, repaired, 1 - broken - repaired), 500)
    intervals = [score_interval(int(worse), int(better), 200) for worse, better, _ in draws]
    held = [low <= broken - repaired <= high for low, high in intervals]
    assert 0.93 <= numpy.mean(held) <= 0.99


def test_the_bootstrap_is_close_to_the_score_interval_and_never_certain_of_little():
    falls = [1.0] * 10 + [0.0] * 490
    assert bootstrap_interval(falls) == pytest.approx(score_interval(10, 0, 500), abs=0.006)
    low, high = bootstrap_interval([0.0] * 5)
    assert low < -0.1 < 0.1 < high
    assert bootstrap_interval(falls) == bootstrap_interval(falls)
    with pytest.raises(ValueError, match="no items"):
        bootstrap_interval([])


def test_so_many_more_items_decide_and_one_fewer_does_not():
    interval = score_interval(20, 0, 500)
    more = items_needed(0.04, interval, 0.05, 500, (20, 0))
    assert more is not None
    assert score_interval(0.04 * (500 + more), 0, 500 + more)[1] <= 0.05
    assert score_interval(0.04 * (499 + more), 0, 499 + more)[1] > 0.05
    assert items_needed(0.05, score_interval(25, 0, 500), 0.05, 500, (25, 0)) is None


def test_a_relative_rise_is_the_mean_of_the_items_own():
    before = [1.0, 2.0] * 20
    rise, (low, high) = relative_rise(before, [value * 1.1 for value in before])
    assert rise == pytest.approx(low) == pytest.approx(high) == pytest.approx(0.1)
    rise, (low, high) = relative_rise(before, [1.2, 2.0] * 20)
    assert rise == pytest.approx(0.1)
    assert low < rise < high
    assert low > 0.06
    assert high < 0.14


@pytest.mark.parametrize("after", [[1.0] * 19, [1.0] * 19 + [math.nan], [1.0] * 19 + [math.inf]])
def test_no_rise_of_too_few_items_or_impossible_ones(after):
    assert relative_rise([1.0] * len(after), after) is None


@given(margin=st.floats(0.001, 0.5))
def test_fewer_than_the_least_items_cannot_pass(margin):
    least = least_items(margin)
    assert score_interval(0, 0, least)[1] <= margin + 1e-9
    assert least == 1 or score_interval(0, 0, least - 1)[1] > margin
