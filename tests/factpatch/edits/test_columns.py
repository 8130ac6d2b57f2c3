"""A map of columns: rows of any other form, by dotted paths."""

from __future__ import annotations

import pytest

from factpatch.edits.forms import FormReader
from factpatch.errors import InputError


def read(raw, columns):
    return FormReader(columns).read(raw)


COLUMNS = {
    "nested": (
        {"prompt": "q.text", "target": "answers.0.text"},
        {"q": {"text": "Who?", "lang": "en"}, "answers": [{"text": "Ann", "start": 3}, {"text": "Bea"}], "id": "a"},
        [{"prompt": "Who?", "target": "Ann", "id": "a"}],
        ("answers (other items)", "answers.start", "q.lang"),
    ),
    "template": (
        {"prompt": "ask", "target": "say", "subject": "of", "locality.prompt": "near", "locality.target": "near_say"},
        {"ask": "{} is led by", "of": "Mali", "say": "Ann", "near": ["a", "b"], "near_say": ["c", "d"]},
        [
            {
                "prompt": "Mali is led by",
                "target": "Ann",
                "subject": "Mali",
                "locality": [{"prompt": "a", "target": "c"}, {"prompt": "b", "target": "d"}],
            }
        ],
        (),
    ),
    "braces without a subject": (
        {"prompt": "ask", "target": "say"},
        {"ask": "What does {} mean in C?", "say": "a block"},
        [{"prompt": "What does {} mean in C?", "target": "a block"}],
        (),
    ),
    "a list of objects": (
        {"prompt": "facts.ask", "target": "facts.say", "portability": "hops", "owner": "by"},
        {
            "facts": [{"ask": "a", "say": "b"}, {"ask": "c", "say": "d"}],
            "hops": {"question": "e", "answer": "f"},
            "by": "ann",
            "id": 5,
        },
        [
            {
                "prompt": "a",
                "target": "b",
                "owner": "ann",
                "id": "5",
                "portability": [{"prompt": "e", "target": "f"}],
            },
            {"prompt": "c", "target": "d", "owner": "ann"},
        ],
        (),
    ),
    "parallel lists": (
        {"prompt": "asked", "target": "said.text", "paraphrases": "also+more"},
        {"asked": ["a", "b"], "said": [{"text": "c"}, {"text": "d"}], "also": [["e"], "f"], "more": "g"},
        [
            {"prompt": "a", "target": "c", "paraphrases": ["e", "g"]},
            {"prompt": "b", "target": "d", "paraphrases": ["f"]},
        ],
        (),
    ),
    "a dot in a name": (
        {"prompt": "q.text", "target": "a"},
        {"q.text": "Who?", "a": "Ann", "target": "left"},
        [{"prompt": "Who?", "target": "Ann"}],
        ("target",),
    ),
    "an addition to a known form": (
        {"id": "case_id", "source": "requested_rewrite.relation_id"},
        {
            "case_id": 7,
            "requested_rewrite": {"prompt": "{} is", "subject": "A", "relation_id": "P1", "target_new": {"str": "t"}},
        },
        [{"id": "7", "prompt": "A is", "target": "t", "subject": "A", "source": "P1"}],
        (),
    ),
    "a native row beside": (
        {"prompt": "ask", "target": "say"},
        {"prompt": "p", "op": "revert"},
        [{"prompt": "p", "op": "revert"}],
        (),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COLUMNS)
def test_a_map_of_columns_reads_any_form(name):
    columns, raw, expected, unused = COLUMNS[name]
    found = read(raw, columns)
    assert [one.values for one in found] == expected
    assert found[0].unused == unused


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"q": "x"}, r"it has no 'ask', which edits.columns names as the prompt \(fields: q\)"),
        ({"ask": ["a", "b"], "say": ["c"]}, "'ask' holds 2 items and 'say' 1"),
        ({"ask": [], "say": []}, "'ask' is an empty list"),
        ({"ask": ["a", {"b": "c"}], "say": ["c", "d"]}, "'ask' holds objects and other values"),
    ],
)
def test_rows_that_the_map_does_not_fit_are_refused(raw, words):
    with pytest.raises(InputError, match=words):
        read(raw, {"prompt": "ask", "target": "say"})
