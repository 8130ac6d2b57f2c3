"""What prompts are about, and names that a model takes for similar."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factpatch.edits.request import EditRequest
from factpatch.edits.subjects import find_subjects, with_subjects
from factpatch.evaluation.answer_cache import AnswerCache
from factpatch.models.loading import load_model
from factpatch.settings.config import ModelSettings
from factpatch.text.known_names import known_names
from factpatch.training_data.similar_names import FOUND, similar_names


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("The capital of France is", "France"),
        ("Albert Einstein was born in", "Albert Einstein"),
        ("Who is the author of The Lord of the Rings?", "The Lord of the Rings"),
        ("What does SKU-1182 cost?", "SKU-1182"),
        ("iPhone 15 was released in", "iPhone 15"),
        ("La capitale de l’Italie est", "Italie"),
        ("L'Oréal was founded in", "L'Oréal"),
        ("What class is USS Parrott (DD-218)?", "USS Parrott (DD-218)"),
        ("Our refund window is", "refund window"),
        ("the capital of france is", "france"),
        ("the chemical symbol of silver is", "silver"),
        ("what is the mother tongue of danielle darrieux?", "danielle darrieux"),
        ("what is it called?", None),
        ("法国的首都是", None),
        ("", None),
    ],
)
def test_a_name_is_written_with_capitals_or_digits_or_is_no_common_word(prompt, subject):
    assert find_subjects([prompt]) == [subject]


def test_what_prompts_have_in_common_tells_the_rest():
    prompts = ["When was Yale University founded?", "When was Lyon station founded?", "When was Rome founded?"]
    prompts += ["When was Oslo founded?", "法国的首都是", "德国的首都是", "意大利的首都是"]
    found = find_subjects(prompts)
    assert found[1] == "Lyon station"
    assert found[4:] == ["法国", "德国", "意大利"]


@given(st.lists(st.text(max_size=40), max_size=6))
def test_a_subject_stands_once_in_its_prompt(prompts):
    for prompt, subject in zip(prompts, find_subjects(prompts), strict=True):
        assert subject is None or (subject and prompt.count(subject) == 1)


def test_what_a_row_names_is_kept_and_what_is_found_is_counted():
    edits = [
        EditRequest("1", "The capital of France is", "Lyon", subject="capital"),
        EditRequest("2", "The capital of Kiribati is", "Lyon"),
        EditRequest("3", "what is it called?", "Lyon"),
    ]
    named, found, lacking = with_subjects(edits)
    assert [edit.subject for edit in named] == ["capital", "Kiribati", None]
    assert (found, lacking) == (1, 1)


def test_similar_names_are_well_known_ones_found_once(reference_model):
    loaded, cache = load_model(ModelSettings(path=str(reference_model))), AnswerCache({})
    first = similar_names(loaded, ["France", "Kiribati"], cache)
    assert [len(names) for names in first] == [FOUND, FOUND]
    assert set().union(*first) <= set(known_names())
    assert "France" not in first[0]
    assert similar_names(None, ["France"], cache) == first[:1]  # the model is asked once
