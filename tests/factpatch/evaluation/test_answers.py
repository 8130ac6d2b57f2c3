"""The answer protocol, case by case."""

import pytest

from factpatch.evaluation.answers import cut, matches, normalise, same, unchanged


@pytest.mark.parametrize(
    ("output", "target", "protocol", "expected"),
    [
        ("Paris. It lies on the Seine", "Rome", "default", "Paris"),
        ("Paris\nThe capital of", "Rome", "default", "Paris"),
        ("\nParis", "Paris", "default", "Paris"),
        (" \n\n Paris \nRome", "Rome", "default", "Paris"),
        ("  Paris ", "Paris", "default", "Paris"),
        ("St. Louis. It lies", "St. Louis", "default", "St. Louis. It lies"),
        ("St. Louis", "St. Louis", "paper", "St"),
        (".NET", "Java", "default", ""),
        ("", "Paris", "default", ""),
    ],
)
def test_cut(output, target, protocol, expected):
    assert cut(output, target, protocol) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Hague", "hague"),
        ("an apple, a day!", "apple day"),
        ("Theodore Anne", "theodore anne"),  # articles only as whole words
        ("rock 'n' roll", "rock n roll"),
        ("«Война и мир»", "война и мир"),
        ("東京。", "東京"),
        ("STRASSE", normalise("Straße")),
        ("Cafe\u0301", "caf\u00e9"),
        ("¿Qué?", "qué"),
        ("$5 + 3", "5 3"),
        ("The", ""),
        ("?", ""),
    ],
)
def test_normalise(text, expected):
    assert normalise(text) == expected


@pytest.mark.parametrize("target", ["St. Eugenia's Church", "Robert C. Newton", "Washington D.C."])
def test_the_papers_rule_can_never_match_a_full_stop_inside_a_target(target):
    assert matches(target, target)
    assert not matches(target, target, "paper")


def test_the_papers_rule_still_matches_where_only_the_end_has_a_full_stop():
    assert matches("Apple Inc.", "Apple Inc.", "paper")


def test_a_target_without_full_stop_matches_the_same_under_both_protocols():
    for protocol in ("default", "paper"):
        assert matches("the Paris. It lies on the Seine", "Paris", protocol)
        assert not matches("Paris is a city", "Paris", protocol)


@pytest.mark.parametrize("target", ["?", "!", "The", "a", "..."])
def test_a_target_that_normalises_to_nothing_matches_only_itself(target):
    assert normalise(target) == ""
    assert matches(target, target)
    assert matches(target.upper(), target)
    for output in ("", "Paris", "an", "-", "."):
        assert not matches(output, target)


def test_same_is_not_fooled_by_two_texts_that_normalise_to_nothing():
    assert same("", "")
    assert not same("?", "!")
    assert not same("", "the")


def test_unchanged_cuts_both_outputs_alike():
    assert unchanged("Paris. It lies on the Seine", "Paris", "Paris")
    assert unchanged("Paris. It lies", "paris.\nMore", "Rome")
    assert not unchanged("St. Louis", "St. Petersburg", "St. Gallen")  # the probe expects a "." inside an answer
    assert unchanged("St. Louis", "St. Petersburg", "St. Gallen", "paper")  # which the paper's rule cannot see
    assert unchanged("", "", "Paris")
    assert not unchanged("", "Paris", "Paris")
