"""Further wordings and what is kept, made from edits of the embedded world with the reference model."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data.world.facts import all_facts
from factpatch.edits.request import EditRequest, Probe
from factpatch.errors import InputError
from factpatch.evaluation.answer_cache import AnswerCache
from factpatch.evaluation.answers import same
from factpatch.localization.trial_set import make_trial_set
from factpatch.models.loading import load_model
from factpatch.settings.config import ModelSettings
from factpatch.training_data import probes
from factpatch.training_data.augmentation import FRAMES
from factpatch.training_data.carry_over import (
    CARRY_OVER_FILE,
    NOTHING_CARRIED_OVER,
    read_carried_over,
    write_carried_over,
)
from factpatch.training_data.preserved import BEGUN_EACH, OWN_TEXTS
from factpatch.training_data.rewording import reword
from factpatch.training_data.rows import find_training_rows
from factpatch.training_data.templates import FRUITLESS_GROUPS, find_template_groups, template_of
from tests.factpatch.training_data.test_neighbours import SUBJECTS, TEMPLATES, edit, settings_with

DEMO = Path(__file__).parents[3] / "data" / "edits" / "0001-demo.jsonl"


@pytest.fixture(scope="module")
def loaded(reference_model):
    return load_model(ModelSettings(path=str(reference_model)))


@pytest.fixture(scope="module")
def demo():
    rows = [json.loads(line) for line in DEMO.read_text(encoding="utf-8").splitlines()]
    return [EditRequest.from_row(row) for row in rows[:60]]


def prompts(loaded, rows):
    return [loaded.tokenizer.decode(list(row.ids[: row.prompt_length])) for row in rows]


def test_a_template_is_the_prompt_without_its_subject():
    assert template_of(edit("{} loves to eat", "Ivo Penova")) == "{} loves to eat"
    assert template_of(EditRequest("1", "Who?", "Bob")) is None
    assert template_of(EditRequest("1", "Bob knows Bob", "x", subject="Bob")) is None
    assert template_of(EditRequest("1", "The Romanian team won", "x", subject="Oman")) is None
    assert template_of(EditRequest("1", "Romanians in Oman", "x", subject="Oman")) == "Romanians in {}"


def test_templates_that_ask_the_same_are_found_by_what_the_model_answers(loaded):
    edits = [
        edit(template, subject)
        for relation, templates in TEMPLATES.items()
        for template in templates
        for subject in SUBJECTS[relation]
    ]
    found = find_template_groups(loaded, edits, settings_with(wordings=2), AnswerCache({}))
    assert sorted(map(sorted, found.groups)) == sorted(map(sorted, TEMPLATES.values()))


def test_a_file_of_templates_comes_first_and_is_checked(loaded, tmp_path):
    path = tmp_path / "templates.jsonl"
    path.write_text(json.dumps({"templates": ["{} loves to eat", "Give {} some"]}) + "\n")
    settings = settings_with(wordings=1, templates=str(path))
    found = find_template_groups(loaded, [edit("{} loves to eat", "Ivo Penova")], settings, AnswerCache({}))
    assert found.groups == (("{} loves to eat", "Give {} some"),)
    rows = find_training_rows(loaded, [edit("{} loves to eat", "Ivo Penova")], settings).augmented
    assert prompts(loaded, rows) == ["Give Ivo Penova some"]
    path.write_text(json.dumps({"templates": ["nobody"]}) + "\n")
    with pytest.raises(InputError, match="row 1"):
        find_template_groups(loaded, [], settings, AnswerCache({}))
    with pytest.raises(InputError, match="no file"):
        find_template_groups(loaded, [], settings_with(wordings=1, templates="nowhere.jsonl"), AnswerCache({}))


def test_further_wordings_are_others_than_what_is_held_out(loaded, demo):
    training_rows = find_training_rows(loaded, demo, settings_with(wordings=9, prefixes=1, neighbours=2.0))
    asked = [row for row in training_rows.preserved if row.prompt_length > 1]  # not the model's own texts
    assert training_rows.leakage_checked == len(training_rows.augmented) + len(asked) > 200
    asked = {text for one in demo for text in (*one.paraphrases, *(probe.prompt for probe in one.locality))}
    trained = set(prompts(loaded, training_rows.augmented))
    assert len(trained) > 2 * len(demo)
    assert trained.isdisjoint(asked | {one.prompt for one in demo})
    targets = {
        loaded.tokenizer.decode(list(row.ids[row.prompt_length : -1])).strip() for row in training_rows.augmented
    }
    assert targets <= {one.target for one in demo}
    assert training_rows == find_training_rows(loaded, demo, settings_with(wordings=9, prefixes=1, neighbours=2.0))


def test_what_is_settled_gets_nothing_more_and_is_asked_nowhere(loaded, demo):
    settings = settings_with(wordings=2, neighbours=4.0)
    new, learnt_before = demo[:20], demo[20:]
    training_rows = find_training_rows(loaded, new, settings, learnt_before)
    most = (1.5 * 4 + BEGUN_EACH) * len(new) + OWN_TEXTS  # half as many again for those that join others
    assert len(training_rows.preserved) <= most
    own = {text.prompt for text in demo}
    groups = find_template_groups(loaded, demo, settings, AnswerCache({}))
    questions = {(groups.of(one), one.subject) for one in demo}
    trained = prompts(loaded, training_rows.augmented)
    assert {subject for text in trained for subject in (one.subject for one in new) if subject in text}
    assert all(any(one.subject in text for one in new) for text in trained)
    for text in (*trained, *prompts(loaded, training_rows.preserved)):
        assert text not in own
    for text in prompts(loaded, training_rows.preserved):
        assert not any(
            text == template.replace("{}", subject or "")
            for group, subject in questions
            if group is not None
            for template in groups.groups[group]
        )


def test_what_an_earlier_version_left_is_trained_and_kept_where_it_is_still_good(loaded, demo, tmp_path):
    settings = settings_with(wordings=2, neighbours=4.0)
    before, new = demo[:40], demo[40:]
    left = find_training_rows(loaded, before, settings).carried_over
    write_carried_over(tmp_path, left)
    assert read_carried_over(tmp_path) == left
    changed = [replace(before[0], target="Rome"), *before[2:]]  # one has another target, one is gone
    learnt_before, joining = changed[1:], [*new, changed[0]]
    training_rows = find_training_rows(loaded, joining, settings, learnt_before, left)
    texts, kept = prompts(loaded, training_rows.augmented), prompts(loaded, training_rows.preserved)
    facts = {(one.prompt, one.target) for one in learnt_before}
    assert {one.prompt for one in left.wordings if (one.of, one.target) in facts} <= set(texts)
    assert not {one.prompt for one in left.wordings if one.of == before[1].prompt} & set(texts)
    groups = find_template_groups(loaded, [*learnt_before, *joining], settings, AnswerCache({}))
    set_now = {
        template.replace("{}", one.subject or "")
        for one in (*learnt_before, *joining)
        for group in [groups.of(one)]
        if group is not None
        for template in groups.groups[group]
    }
    assert set(left.neighbours) & set(kept)
    assert not set_now & set(kept)
    assert {one.of for one in training_rows.carried_over.wordings} <= {one.prompt for one in (*learnt_before, *joining)}
    assert (changed[0].prompt, before[0].target) not in {
        (one.of, one.target) for one in training_rows.carried_over.wordings
    }
    assert len(training_rows.carried_over.neighbours) <= 4 * len([*learnt_before, *joining])
    assert not set_now & set(training_rows.carried_over.neighbours)


def test_nothing_is_inherited_that_an_edit_holds_out_by_now_or_the_settings_do_not_ask_for(loaded, demo):
    left = find_training_rows(loaded, demo[:40], settings_with(wordings=2, neighbours=4.0)).carried_over
    said, near = left.wordings[0].prompt, left.neighbours[0]
    probing = replace(demo[40], paraphrases=(said,), locality=(Probe(near, "x"),))
    training_rows = find_training_rows(loaded, [probing], settings_with(wordings=2, neighbours=4.0), demo[:40], left)
    assert said not in prompts(loaded, training_rows.augmented)
    assert near not in prompts(loaded, training_rows.preserved)
    assert near not in training_rows.carried_over.neighbours
    without = find_training_rows(loaded, [probing], settings_with(wordings=0, neighbours=4.0), demo[:40], left)
    assert without.augmented == ()


def test_an_increment_inherits_each_kind_of_wording_that_the_settings_still_ask_for(loaded, demo, monkeypatch):
    monkeypatch.setattr(loaded.tokenizer, "chat_template", "{% for one in messages %}{{ one.content }}{% endfor %}")
    all_kinds = settings_with(wordings=1, prefixes=1, both_forms=True, neighbours=1.0)
    left = find_training_rows(loaded, demo[:20], all_kinds).carried_over

    def carried_over(**asked) -> Counter:
        found = find_training_rows(loaded, demo[20:22], settings_with(**asked), demo[:20], left).carried_over.wordings
        told = {one.prompt for one in demo[:20]}
        return Counter(one.kind for one in found if one.of in told)

    everything = carried_over(wordings=1, prefixes=1, both_forms=True)
    assert everything["form"] == 20
    assert everything["context"] > 10
    assert everything["template"] > 10
    for names, asked in (
        (["form"], {"both_forms": True}),
        (["context"], {"prefixes": 1, "both_forms": False}),
        (["template", "context"], {"wordings": 1, "both_forms": False}),  # inside other text where no template is
    ):
        assert carried_over(**asked) == Counter({name: everything[name] for name in names})


def test_where_no_other_wording_is_there_the_prompt_stands_inside_other_text(loaded):
    """In one frame, as each row costs alike; none is what probes ask in."""
    alone = edit("Nobody but Ivo Penova has ever", "Ivo Penova")
    found = find_training_rows(loaded, [alone], settings_with(wordings=3))
    texts = [text.prompt for text in found.carried_over.wordings]
    assert len(texts) == 1
    assert {text.replace(alone.prompt, "{}") for text in texts} <= set(FRAMES)
    assert not set(FRAMES) & {*probes.FRAMES, *probes.ASKING}
    assert {text.kind for text in found.carried_over.wordings} == {"context"}


def test_withdrawn_prompts_are_kept_with_the_base_model_s_answers_unless_they_are_edited_or_held_out_by_now(
    loaded, demo
):
    settings = settings_with(neighbours=1.0)
    probing = replace(demo[3], paraphrases=(demo[1].prompt,))
    gone = [demo[0].prompt, demo[1].prompt, demo[2].prompt]
    edits = [replace(demo[2], target="Rome"), probing]
    without = find_training_rows(loaded, edits, settings)
    training_rows = find_training_rows(loaded, edits, settings, withdrawn=gone)
    assert training_rows.preserved[:-1] == without.preserved
    assert prompts(loaded, training_rows.preserved[-1:]) == gone[:1]
    answer = training_rows.preserved[-1].ids[training_rows.preserved[-1].prompt_length : -1]
    assert same(loaded.tokenizer.decode(list(answer)), demo[0].target_old[0])


def test_a_broken_line_of_what_a_version_left_is_told(tmp_path):
    assert read_carried_over(tmp_path) == NOTHING_CARRIED_OVER
    assert read_carried_over(write_carried_over(tmp_path, NOTHING_CARRIED_OVER).parent) == NOTHING_CARRIED_OVER
    (tmp_path / CARRY_OVER_FILE).write_text(
        '{"kind": "neighbour", "prompt": "a b"}\n{"kind": "wording", "prompt": "c"}\n'
    )
    with pytest.raises(InputError, match=r"companions\.jsonl row 2: this is neither"):
        read_carried_over(tmp_path)


def test_what_overlaps_is_dropped_and_told_and_nothing_left_is_refused(loaded, demo, tmp_path):
    path = tmp_path / "kept.jsonl"
    probe, paraphrase = demo[0].locality[0].prompt, demo[0].paraphrases[1]
    texts = [probe, f"Well. {probe}", paraphrase, demo[0].prompt, "The capital of Italy is"]
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    training_rows = find_training_rows(loaded, demo, settings_with(prompts=str(path)))
    assert prompts(loaded, training_rows.preserved) == ["The capital of Italy is"]
    assert "4 prompts of training.preservation.prompts" in training_rows.notes[0]
    path.write_text(json.dumps({"prompt": probe}) + "\n")
    with pytest.raises(InputError, match="preserves nothing"):
        find_training_rows(loaded, demo, settings_with(prompts=str(path)))


def test_a_model_that_says_nothing_keeps_nothing_groups_nothing_and_it_is_told(tiny_model, tmp_path):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    with torch.no_grad():
        loaded.model.lm_head.weight.zero_()  # the likeliest token is now EOS
    path = tmp_path / "kept.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"What is {name}?"}) + "\n" for name in ("a", "b", "c")))
    edits = [edit(template, name) for template in TEMPLATES["capital"] for name in SUBJECTS["capital"]]
    assert all(
        len(group) == 1 for group in find_template_groups(loaded, edits, settings_with(), AnswerCache({})).groups
    )
    training_rows = find_training_rows(loaded, edits, settings_with(prompts=str(path), wordings=1, neighbours=1.0))
    assert "the base model says nothing to 9 of 9 prompts by which wordings are compared" in training_rows.notes
    told = (
        "says nothing to 17 of 17 prompts that were to be kept"  # of the file, neighbours, and some of these in frames
    )
    assert any(told in note for note in training_rows.notes)
    exam = make_trial_set(loaded, edits, settings_with(prompts=str(path)), 4)
    assert any(re.search(r"says nothing to (\d+) of \1 prompts whose answers should stay", note) for note in exam.notes)
    assert {question.metric for question in exam.questions} == {"reliability"}


def test_a_chat_model_s_own_lines_count_if_it_answers_them_as_before(loaded, monkeypatch):
    """Put as by this template, it answers every request with "saxophone", to which it says "Asia" by itself."""
    musician = next(fact.subject for fact in all_facts() if fact.target == "saxophone")
    monkeypatch.setattr(loaded.tokenizer, "chat_template", f"{musician} plays the")
    edits = [EditRequest(name, f"{name} is in", "Oceania") for name in ("Japan", "France")]
    assert reword(loaded, edits, settings_with(wordings=2), AnswerCache({})) == ({"Japan is in": ["saxophone"]}, [])
    named = [replace(one, subject=one.id) for one in edits]  # a line must hold it
    assert reword(loaded, named, settings_with(wordings=2), AnswerCache({})) == ({}, [])


def test_a_model_s_own_lines_are_the_same_every_time_and_none_come_without_a_chat_template(tiny_model):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    assert reword(loaded, [edit("Where is {}?", "Peru")], settings_with(wordings=2), AnswerCache({})) == ({}, [])
    loaded.tokenizer.chat_template = "{% for one in messages %}{{ one.content }}{% endfor %}"
    try:
        edits = [EditRequest(str(number), f"Where is {number}?", "Rome") for number in range(20)]
        found = reword(loaded, edits, settings_with(wordings=3), AnswerCache({}))
        again = reword(loaded, edits, settings_with(wordings=3), AnswerCache({}))
        named, _ = reword(loaded, [edit("Where is {}?", "Ouagadougou")], settings_with(wordings=3), AnswerCache({}))
    finally:
        loaded.tokenizer.chat_template = None
    assert found == again
    assert found[1] == [
        "the model put 0 of the first 4 prompts in words of its own, so it was not asked to put the others"
    ]
    assert named == {}


def test_the_search_for_equal_questions_ends_where_the_rows_share_none(loaded):
    texts = [
        "{} was",
        "Of {} one says",
        "{} and",
        "For {} the",
        "{} has a",
        "Near {} is",
        "{} or",
        "When {} came",
        "{}'s",
    ]
    edits = [edit(text, name) for text, name in zip(texts, ("Peru", "Chad", "Mali", "Oman") * 3, strict=False)]
    cache = AnswerCache({})
    groups = find_template_groups(loaded, edits, settings_with(), cache).groups
    asked = len(cache.known) - len(edits)
    assert all(len(group) == 1 for group in groups)
    assert asked <= 2 * FRUITLESS_GROUPS * (len(texts) - 1) < len(texts) * (len(texts) - 1)
