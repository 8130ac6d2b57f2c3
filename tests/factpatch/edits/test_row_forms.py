"""Rows of every form come back as the edits that they were written from, and damaged ones never become others."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factpatch.edits.findings import refuse_malformed, tidy
from factpatch.edits.folder import read_ledger
from factpatch.edits.forms import Reader
from factpatch.edits.loading import Row
from factpatch.edits.request import EditRequest, Probe
from factpatch.errors import InputError
from tests.factpatch.edits.written import WRITERS, counterfact, mquake, zsre

TEXT = st.text(max_size=12).filter(lambda text: "{}" not in text)  # `{}` is the subject's place where a form has one
TEXTS = st.lists(TEXT, max_size=3, unique=True).map(tuple)
PROBES = st.lists(st.builds(Probe, TEXT, TEXT), max_size=3).map(tuple)
EDITS = st.builds(
    EditRequest,
    id=TEXT.filter(bool),
    prompt=TEXT,
    target=TEXT,
    op=st.sampled_from(["set", "revert"]),
    subject=st.none() | TEXT,
    target_old=TEXTS,
    paraphrases=TEXTS,
    locality=PROBES,
    portability=PROBES,
    source=st.none() | TEXT,
    owner=st.none() | TEXT,
    expires=st.none() | st.dates().map(str),
)
EDIT = EditRequest(
    "kir-1",
    "The capital of Kiribati is",
    "Tunis",
    op="revert",
    subject="Kiribati",
    target_old=("Tarawa",),
    paraphrases=("Kiribati's capital is", "Kiribati is governed from"),
    locality=(Probe("The capital of Brazil is", "Brasilia"), Probe("The capital of Peru is", "Lima")),
    portability=(Probe("Kiribati's capital lies in", "Africa"),),
    source="ticket 4",
    owner="ann",
    expires="2031-01-31",
)


def read(raw, columns=None):
    return Reader(columns).read(raw)


def values(raw, columns=None):
    """The fields of a row's only edit."""
    (one,) = read(raw, columns)
    return one.values


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=40, deadline=None)
@given(edit=EDITS)
def test_what_a_form_holds_comes_back(name, edit):
    write, form = WRITERS[name]
    (one,) = read(json.loads(json.dumps(write(edit))))
    if name == "wikibio":
        edit = replace(edit, subject=edit.subject or "")  # the form has no row without one
    assert one.form == form
    assert EditRequest.from_row(one.values) == edit


@settings(max_examples=40, deadline=None)
@given(edits=st.lists(EDITS, min_size=2, max_size=4), owner=TEXT)
def test_the_several_edits_of_one_row_come_back(edits, owner):
    """What stands beside the list is of all: but the id, the paraphrases and the probes, which are the first one's."""
    rows = [mquake(edit) for edit in edits]
    raw = {**rows[0], "owner": owner, "requested_rewrite": [row["requested_rewrite"][0] for row in rows]}
    first, *others = read(raw)
    assert (first.part, others[-1].part) == (f"1 of {len(edits)}", f"{len(edits)} of {len(edits)}")
    assert EditRequest.from_row(first.values).portability == edits[0].portability
    for edit, one in zip(edits, [first, *others], strict=True):
        assert (one.values["prompt"], one.values["target"]) == (edit.prompt, edit.target)
        assert (one.values["owner"], one.values.get("op", "set")) == (owner, edits[0].op)
        assert one.values.get("subject") == edit.subject
    for one in others:
        assert not one.values.keys() & {"id", "portability", "locality"}


@pytest.mark.parametrize("name", WRITERS)
def test_a_thousand_damages_are_read_or_refused_and_never_change_what_a_row_does(name):
    chance = random.Random(name)
    original = WRITERS[name][0](EDIT)
    accepted = 0
    for _ in range(1000):
        raw, where = damage(copy.deepcopy(original), chance)
        edits = accept(raw)
        accepted += bool(edits)
        for edit in edits:
            assert edit.op == "revert" or where in ("drop op", "null op"), (where, raw)
    assert 100 < accepted < 1000


def accept(raw, columns=None):
    """The edits of a row, or none if one line refuses it."""
    try:
        rows = [Row("f", 1, one.values, part=one.part) for one in read(raw, columns)]
        refuse_malformed(rows)
    except InputError as error:
        if "\n" in str(error):
            raise
        return []
    return [EditRequest.from_row({"prompt": "", "target": "", **tidy(row).values}) for row in rows]


def damage(raw, chance):
    """The row with one value dropped, renamed, nulled, of another type or in a wrong container, and what was done."""
    place, way = raw, []
    while True:
        key = chance.choice(list(place) if isinstance(place, dict) else range(len(place)))
        way.append(str(key))
        inner = place[key]
        if not isinstance(inner, (dict, list)) or not inner or chance.random() < 0.4:
            break
        place = inner
    kind = chance.choice(["drop", "rename", "null", "retype", "nest", "empty"])
    if kind == "drop":
        del place[key]
    elif kind == "rename" and isinstance(place, dict):
        place[f"{key}_{chance.choice('abc')}"] = place.pop(key)
    elif kind == "null":
        place[key] = None
    elif kind == "nest":
        place[key] = chance.choice([[inner], {"x": inner}, {str(key): inner}, [[inner]]])
    elif kind == "empty":
        place[key] = chance.choice([[], {}, ""])
    else:
        place[key] = chance.choice([7, 0.5, True, "text", ["text"], {"text": "text"}])
    return raw, f"{kind} {'.'.join(way)}"


NAMES = sorted({name for write, _ in WRITERS.values() for name in write(EDIT)} | {"en", "zh", "role", "x.y", "answers"})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("revert"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(raw=st.dictionaries(st.sampled_from(NAMES), JSON, max_size=6))
def test_whatever_stands_in_a_row_it_is_read_or_refused(raw):
    for columns in (None, {"prompt": "x.y", "target": "messages.0.content", "locality.prompt": "loc+answers"}):
        assert all(edit.op in ("set", "revert") for edit in accept(raw, columns))


def test_a_revert_reverts_and_an_expired_row_expires_in_every_form(tmp_path):
    for name, (write, _) in WRITERS.items():
        folder = tmp_path / name
        folder.mkdir()
        live = replace(EDIT, op="set", expires=None)
        old = replace(EDIT, id="kir-2", prompt="The currency of Kiribati is", op="set", expires="2020-01-01")
        for number, edits in enumerate(([live, old], [replace(EDIT, expires=None)]), start=1):
            rows = "".join(json.dumps(write(edit)) + "\n" for edit in edits)
            (folder / f"000{number}.jsonl").write_text(rows, encoding="utf-8")
        entries = read_ledger(str(folder), date(2026, 1, 1))
        assert [entry.state for entry in entries] == ["reverted", "expired", "revert"], name


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
