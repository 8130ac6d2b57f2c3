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
from factpatch.edits.forms import FormReader
from factpatch.edits.loading import Row
from factpatch.edits.request import EditRequest, Probe
from factpatch.errors import InputError
from tests.factpatch.edits.written import EDIT, WRITERS, mquake

TEXT = st.text(max_size=12).filter(lambda text: "{}" not in text)  # `{}` is the subject's place where a form has one
SAID = TEXT.filter(bool)  # an empty text is an absent one, but as prompt and target
TEXTS = st.lists(TEXT, max_size=3, unique=True).map(tuple)
PROBES = st.lists(st.builds(Probe, TEXT, TEXT), max_size=3).map(tuple)
EDITS = st.builds(
    EditRequest,
    id=SAID,
    prompt=TEXT,
    target=TEXT,
    op=st.sampled_from(["set", "revert"]),
    subject=st.none() | SAID,
    target_old=TEXTS,
    paraphrases=TEXTS,
    locality=PROBES,
    portability=PROBES,
    source=st.none() | SAID,
    owner=st.none() | SAID,
    expires=st.none() | st.dates().map(str),
)


def read(raw, columns=None):
    return FormReader(columns).read(raw)


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=40, deadline=None)
@given(edit=EDITS)
def test_what_a_form_holds_comes_back(name, edit):
    write, form = WRITERS[name]
    (one,) = read(json.loads(json.dumps(write(edit))))
    assert one.form == form
    assert EditRequest.from_row(one.values) == edit


@settings(max_examples=40, deadline=None)
@given(edits=st.lists(EDITS, min_size=2, max_size=4), owner=SAID)
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
