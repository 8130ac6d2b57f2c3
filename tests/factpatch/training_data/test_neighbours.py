"""Neighbours: the edits' own questions about other subjects."""

from collections import Counter
from dataclasses import fields, replace
from itertools import permutations

import pytest
from hypothesis import given, strategies

from factpatch.edits.request import EditRequest, Probe
from factpatch.models.loading import load_model
from factpatch.settings.config import GateSettings, ModelSettings, Settings, TrainingSettings, TrunkSettings
from factpatch.settings.training import NO_AUGMENTATION, NO_PRESERVATION, AugmentationSettings, PreservationSettings
from factpatch.training_data.leakage import held_out
from factpatch.training_data.neighbours import draw_neighbours, name_parts
from factpatch.training_data.templates import TemplateGroups

TEMPLATES = {
    "capital": ("The capital of {} is", "{}'s capital is", "What is the capital of {}?"),
    "currency": ("The currency of {} is the", "People in {} pay with the"),
    "food": ("{} loves to eat", "{}'s favourite dish is"),
}
SUBJECTS = {
    "capital": ("Peru", "Spain", "Japan"),
    "currency": ("Peru", "Japan"),
    "food": ("Ivo Penova", "Marek Merova"),
}


def edit(template, subject, **options):
    return EditRequest(f"{template}{subject}", template.replace("{}", subject), "Rome", subject=subject, **options)


@pytest.fixture(scope="module")
def loaded(reference_model):
    return load_model(ModelSettings(path=str(reference_model)))


def settings_with(**values):
    """Settings that preserve and augment nothing but what is named."""

    def own(kind):
        return {field.name: values[field.name] for field in fields(kind) if field.name in values}

    return Settings(
        training=TrainingSettings(
            preservation=replace(NO_PRESERVATION, **own(PreservationSettings)),
            augmentation=replace(NO_AUGMENTATION, **own(AugmentationSettings)),
        ),
        trunk=TrunkSettings(folder=None),
        gates=GateSettings(canaries=None),
    )


WORDINGS = TemplateGroups(
    tuple(TEMPLATES.values()),
    {template: number for number, group in enumerate(TEMPLATES.values()) for template in group},
)


def test_neighbours_ask_nothing_that_is_edited_or_probed(loaded):
    probe = Probe("People in Spain pay with the", "euro")
    edits = [edit("{}'s capital is", "Peru", locality=(probe,)), edit("The currency of {} is the", "Japan")]
    edits.append(edit("{}'s capital is", "Spain"))
    kept = [EditRequest("k", "The capital of Japan is", "Tokyo"), EditRequest("k", "Ivo Penova loves to eat", "pizza")]
    found = draw_neighbours(edits, kept, WORDINGS, held_out(edits), settings_with(neighbours=100.0), loaded.tokenizer)
    named = {
        (one.prompt, one.target) for one in found if any(name in one.prompt for name in (*SUBJECTS["capital"], "Ivo"))
    }
    assert named == {
        ("The currency of Peru is the", ""),
        ("People in Peru pay with the", ""),
        ("Japan's capital is", "Tokyo"),
        ("What is the capital of Japan?", "Tokyo"),
        ("Ivo Penova's favourite dish is", "pizza"),
    }
    mixed = {one.prompt for one in found} - {prompt for prompt, _ in named}
    pairs = list(permutations([name_parts(loaded.tokenizer, name) for name in SUBJECTS["capital"]], 2))
    names = {"".join([*first[:-1], last[-1]]) for first, last in pairs}
    names |= {"".join([first[0], *last[1:]]) for first, last in pairs}
    assert mixed
    assert all(any(name in prompt for name in names) for prompt in mixed)


def test_a_subject_that_a_kept_prompt_names_is_asked_what_others_of_its_sort_are(loaded):
    edits = [edit("{}'s capital is", "Peru"), edit("The currency of {} is the", "Peru")]
    kept = [EditRequest("k", "The capital of Italy is", "Rome"), EditRequest("k", "Ivo Penova loves to eat", "pizza")]
    found = draw_neighbours(edits, kept, WORDINGS, held_out(edits), settings_with(neighbours=100.0), loaded.tokenizer)
    italian = {one.prompt for one in found if "Italy" in one.prompt}
    assert {"The currency of Italy is the", "People in Italy pay with the"} < italian
    assert not any("Italy" in one.prompt and "eat" in one.prompt for one in found)


def test_a_third_of_few_neighbours_is_about_edited_subjects_and_all_is_asked_once_before_anything_twice(loaded):
    edits = [
        edit("{}'s capital is", "Peru"),
        edit("{}'s capital is", "Spain"),
        edit("The currency of {} is the", "Japan"),
    ]
    kept = [EditRequest("k", "The capital of Japan is", "Tokyo")]
    found = draw_neighbours(edits, kept, WORDINGS, held_out(edits), settings_with(neighbours=3.0), loaded.tokenizer)
    asked = Counter(
        (relation, one.prompt[len(before) : len(one.prompt) - len(after)])
        for one in found
        for relation, templates in TEMPLATES.items()
        for before, _, after in (template.partition("{}") for template in templates)
        if one.prompt.startswith(before) and one.prompt.endswith(after)
    )
    own = {("currency", "Peru"), ("currency", "Spain"), ("capital", "Japan")}
    assert asked.total() == len(found) == 9
    assert {question: asked[question] for question in own} == dict.fromkeys(own, 1)
    others = [count for question, count in asked.items() if question not in own]
    assert max(others) <= min(others) + 1


@pytest.mark.parametrize(("name", "count"), [("Ada Berg", 2), ("New Zealand", 2), ("Thailand", 3), ("Lebanon", 3)])
def test_a_name_has_parts_to_exchange(loaded, name, count):
    parts = name_parts(loaded.tokenizer, name)
    assert "".join(parts) == name
    assert len(parts) == count


@given(strategies.text())
def test_the_parts_of_any_name_make_the_name(loaded, name):
    assert "".join(name_parts(loaded.tokenizer, name)) == name
