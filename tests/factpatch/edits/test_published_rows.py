"""Rows as published sets hold them, what of them is not used, and what is refused by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from factpatch.edits.forms import FormReader
from factpatch.errors import InputError
from tests.factpatch.edits.written import EDIT, counterfact, zsre


def read(raw):
    return FormReader().read(raw)


def values(raw):
    """The fields of a row's only edit."""
    (one,) = read(raw)
    return one.values


def test_zsre_as_published():
    raw = {
        "subject": "Clutch Hitter",
        "src": "What is the publisher of Clutch Hitter?",
        "pred": "Viking Press",
        "rephrase": "What's the publisher of Clutch Hitter?",
        "alt": "Cinematronics",
        "answers": ["Sega"],
        "loc": "nq question: what part of the brain is in the middle cranial fossa",
        "loc_ans": "temporal lobes",
        "cond": "Viking Press >> Cinematronics || What is the publisher of Clutch Hitter?",
        "portability": {
            "Recalled Relation": "(Clutch Hitter, genre, sports)",
            "New Question": "In which state does the publisher of Clutch Hitter sit?",
            "New Answer": "California",
        },
    }
    (one,) = read(raw)
    assert one.values == {
        "prompt": "What is the publisher of Clutch Hitter?",
        "target": "Cinematronics",
        "subject": "Clutch Hitter",
        "target_old": ["Sega"],
        "paraphrases": ["What's the publisher of Clutch Hitter?"],
        "locality": [
            {"prompt": "nq question: what part of the brain is in the middle cranial fossa", "target": "temporal lobes"}
        ],
        "portability": [{"prompt": "In which state does the publisher of Clutch Hitter sit?", "target": "California"}],
    }
    assert one.unused == ("cond", "portability.Recalled Relation", "pred")


def test_mend_takes_the_first_counterfactual_answer_and_names_the_others():
    raw = {
        "input": "Who made Zork?",
        "prediction": "Sega",
        "alternatives": ["Atari", "Sony"],
        "filtered_rephrases": ["Zork was made by whom?"],
        "output": [{"answer": "Infocom", "provenance": [{"title": "Zork"}]}, {"provenance": [{"title": "Infocom"}]}],
    }
    (one,) = read(raw)
    assert one.values == {
        "prompt": "Who made Zork?",
        "target": "Atari",
        "target_old": ["Infocom"],
        "paraphrases": ["Zork was made by whom?"],
    }
    assert one.unused == ("alternatives (other items)", "output.provenance", "prediction")
    assert values({**raw, "alternatives": []})["target"] == ""  # set aside as blank: the set has such rows


def test_neighbours_of_counterfact_are_answered_by_the_true_object():
    raw = counterfact(EDIT) | {"neighborhood_prompts": ["Palau's capital is", "Nauru's capital is"]}
    del raw["locality"]
    (one,) = read(raw)
    assert one.values["prompt"] == "The capital of Kiribati is"
    assert one.values["locality"] == [
        {"prompt": "Palau's capital is", "target": "Tarawa"},
        {"prompt": "Nauru's capital is", "target": "Tarawa"},
    ]
    assert one.unused == (
        *("attribute_prompts", "case_id", "requested_rewrite.relation_id"),
        *("requested_rewrite.target_new.id", "requested_rewrite.target_true.id"),
    )  # fmt: skip


def test_of_several_right_answers_a_probe_has_the_first_and_the_others_are_named():
    raw = {
        "prompt": "p",
        "target_new": "t",
        "locality": {"Other": [{"prompt": ["q"], "ground_truth": [["Berlin", "Berlin, Germany"]]}]},
        "portability_prompt": "r",
        "portability_ground_truth": ["Chinese", "Mandarin"],
    }
    (one,) = read(raw)
    assert one.values["locality"] == [{"prompt": "q", "target": "Berlin"}]
    assert one.values["portability"] == [{"prompt": "r", "target": "Chinese"}]
    assert one.unused == ("locality.ground_truth (other answers)", "portability_ground_truth (other answers)")


def test_each_language_of_a_row_is_an_edit():
    german = zsre(replace(EDIT, prompt="Die Hauptstadt von Kiribati ist"))
    raw = {"op": "revert", "id": "k", "note": "x", "en": zsre(EDIT), "de": german}
    for row in (raw["en"], raw["de"]):
        del row["id"], row["op"]
    english, other = read(raw)
    assert (english.form, english.part, other.part) == ("ZsRE by language", "en", "de")
    assert (english.values["id"], english.values["op"]) == ("k", "revert")
    assert (other.values["op"], other.values["prompt"]) == ("revert", "Die Hauptstadt von Kiribati ist")
    assert "id" not in other.values
    assert (english.unused, other.unused) == (("cond", "note", "pred"), ())


def test_a_system_turn_is_named_as_unused_and_parts_of_text_are_joined():
    turns = [
        {"role": "system", "content": "You are brief."},
        {"role": "user", "content": [{"type": "text", "text": "Who "}, {"type": "text", "text": "rules?"}]},
        {"role": "assistant", "content": "Ann", "weight": 1},
    ]
    (one,) = read({"messages": turns})
    assert one.values == {"prompt": "Who rules?", "target": "Ann"}
    assert one.unused == ("messages.system", "messages.weight")


USER, SAID = {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ann"}
REFUSED = {
    "unknown": ({"term": "a", "gloss": "b"}, r"form is not known \(fields: term, gloss\); .*--columns prompt="),
    "ripple": ({"example_type": "recent", "edit": {"prompt": "It is Ann."}}, "that of RippleEdits, .*'edit.prompt'"),
    "turns": ({"messages": [USER, SAID, USER, SAID]}, "one user turn .* holds: user, assistant, user, assistant"),
    "no answer": ({"messages": [USER]}, r"holds: user\); write every question"),
    "no turns": ({"conversations": []}, "holds: none"),
    "tool": ({"messages": [USER, {"role": "tool", "content": "x"}]}, "has the role 'tool'"),
    "no text": ({"messages": [USER, {"role": "assistant", "content": None}]}, "assistant turn .* holds no text"),
    "image": ({"messages": [{"role": "user", "content": [{"type": "image"}]}, SAID]}, "user turn .* holds no text"),
    "history": ({"instruction": "Who?", "output": "Ann", "history": [["a", "b"]]}, "'history' holds earlier turns"),
    "two forms": ({"question": "q", "answer": "a", "instruction": "q", "output": "a"}, "forms question-answer and Alp"),
    "differing": ({"prompt": "p", "target": "t", "target_new": "u"}, "'target_new' and 'target' say the same field"),
    "no rewrite": ({"requested_rewrite": []}, "'requested_rewrite' is an empty list"),
    "no subject": ({"requested_rewrite": {"prompt": "{} is", "target_new": {"str": "t"}}}, "the row has no subject"),
    "lengths": (
        {"prompt": "p", "target_new": "t", "locality_prompt": ["q", "r"], "locality_ground_truth": ["a"]},
        "'locality_prompt' holds 2 prompts, but 'locality_ground_truth' 1 answers",
    ),
    "slip": ({"prompt": "p", "target_new": "t", "Expires": "2030-01-01"}, "'Expires' is not known; did you mean 'exp"),
    "slip of the form's": ({"src": "q", "alt": "t", "rephrases": "r"}, "did you mean 'rephrase'"),
    "slip by language": ({"owners": "ann", "en": {"src": "q", "alt": "t"}}, "did you mean 'owner'"),
    "revert elsewhere": ({"prompt": "p", "target": "t", "action": "revert"}, "'action' says 'revert', but it is 'op'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_by_name(name):
    raw, words = REFUSED[name]
    with pytest.raises(InputError, match=words):
        read(raw)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"prompt": "p", "target": "t", "id": 7, "note": "x"}, {"prompt": "p", "target": "t", "id": "7"}),
        ({"prompt": "p", "target": None, "paraphrases": None}, {"prompt": "p"}),
        ({"prompt": "p", "target": 1968, "paraphrases": [1]}, {"prompt": "p", "target": 1968, "paraphrases": [1]}),
        ({"prompt": "p", "target": "t", "locality": "no"}, {"prompt": "p", "target": "t", "locality": ["no"]}),
        ({"src": "p", "loc": "q", "loc_ans": None}, {"prompt": "p"}),
        ({"prompt": "p", "target": "t", "src": "wiki", "question": "q"}, {"prompt": "p", "target": "t"}),
        ({"prompt": "p", "target": "t", "target_new": "t"}, {"prompt": "p", "target": "t"}),
        ({"prompt": None, "target_new": "t", "id": "a", "op": "revert"}, {"target": "t", "id": "a", "op": "revert"}),
    ],
)
def test_nothing_is_checked_and_null_is_absent(raw, expected):
    assert values(raw) == expected
