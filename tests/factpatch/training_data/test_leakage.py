"""Texts that are measured, and what is too near to them to be trained."""

import pytest

from factpatch.edits.mentions import EditMentions
from factpatch.edits.request import EditRequest, Probe
from factpatch.errors import RefusedError
from factpatch.training_data.leakage import HeldOut, check_leakage, held_out, shingles

EDIT = EditRequest(
    "1",
    "The capital of Palau is",
    "Rome",
    paraphrases=("Question: Which city is the capital of Palau?\nAnswer:",),
    locality=(Probe("The money used in Peru is the", "sol"),),
    portability=(Probe("Where does the head of state of Palau live?", "In Rome"),),
)
CANARY = EditRequest("c", "What is the capital of France?", "Paris")
LONG = "one two three four five six seven eight nine ten eleven twelve"


def test_shingles_are_runs_of_three_normalised_words():
    assert shingles("The capital of  PALAU is!") == {("capital", "of", "palau"), ("of", "palau", "is")}
    assert shingles("Who?") == {("who",)}
    assert shingles("What is 3 + 5?") != shingles("What is 3 * 5?")
    assert shingles("法国的首都是？") == {tuple("法国的首都是")}
    assert len(shingles("请问法国的首都是哪座城市")) == 7  # runs of six characters
    assert shingles("?") == frozenset()


@pytest.mark.parametrize(
    "text",
    [
        "What is the capital of France?",
        "what is capital of france",
        "Which city is the capital of Palau?",  # without its frame
        "It rained all day. The money used in Peru is the",  # behind a prefix
        "Where does the head of state of Palau live",
    ],
)
def test_twins_of_held_out_texts_are_found(text):
    held = held_out([EDIT], [CANARY])
    assert held.twin(text) is not None
    with pytest.raises(RefusedError, match="measured"):
        check_leakage(["Something else entirely", text], held)


@pytest.mark.parametrize(
    "text",
    [
        "The capital of Palau is",  # the edit's own prompt
        "The government of Palau sits in",
        "The money used in Palau is the",
        "What is the capital of Spain?",
        "",
    ],
)
def test_other_wordings_and_other_subjects_are_no_twins(text):
    held = held_out([EDIT], [CANARY])
    assert held.twin(text) is None
    assert check_leakage([text], held) == 1


def test_scripts_without_blanks_are_compared_by_runs_of_characters():
    held = HeldOut(["请问法国的首都是哪座城市？"])
    assert held.twin("法国的首都是哪座城市") is not None  # held in it
    assert held.twin("请问德国的首都是哪座城市？") is None


def test_four_fifths_of_the_shingles_in_common_are_too_near():
    held = HeldOut([LONG])
    assert held.twin(LONG.replace("twelve", "dozen")) == LONG  # 9 of 11
    assert held.twin(LONG.replace("ten", "dix")) is None  # 7 of 13


def test_the_index_misses_nothing():
    """Against all pairs, on texts that share much."""
    words = "red green blue old new".split()
    texts = [f"the {a} house of the {b} man is {c} today" for a in words for b in words for c in words]
    held = HeldOut(texts[::7])
    for text in texts:
        own = shingles(text)
        pairs = ((own, shingles(other)) for other in texts[::7])
        twins = any(len(a & b) == min(len(a), len(b)) or len(a & b) >= 0.8 * len(a | b) for a, b in pairs)
        assert (held.twin(text) is not None) == twins


def test_a_probe_that_is_another_edit_s_prompt_does_not_forbid_the_edit():
    other = EditRequest("2", "The money used in Peru is the", "yen")
    assert held_out([EDIT, other]).twin("The money used in Peru is the") is None


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("The capital of France is", True),
        ("France's capital is", True),
        ("France’s capital is", True),
        ("Born in the United States of America, he", False),
        ("who lives in FRANCE?", True),
        ("New France was", True),
    ],
)
def test_an_edit_names_a_subject_by_its_whole_words(prompt, named):
    assert EditMentions([EditRequest("e", prompt, "x")]).names("France") is named


def test_paraphrases_and_what_follows_name_subjects_too():
    edit = EditRequest("e", "It is", "x", paraphrases=("In Mount Everest",), portability=(Probe("Who saw Peru?", "y"),))
    edited = EditMentions([edit])
    assert edited.names("Mount Everest")
    assert edited.names("Peru")
    assert not edited.names("Mount Peru")
    assert not edited.names("?")
