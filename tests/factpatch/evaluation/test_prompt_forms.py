"""A model with a chat template is measured in both forms; one without it as ever."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from factpatch.editing import run_edit
from factpatch.edits.loading import read_rows
from factpatch.edits.request import EditRequest, Probe
from factpatch.errors import InputError
from factpatch.evaluation.answers import matches
from factpatch.evaluation.evaluate import METRICS
from factpatch.evaluation.generation import decode
from factpatch.evaluation.prompt_forms import MEASURED_METRICS, ask_forms, measure_forms
from factpatch.files import write_jsonl
from factpatch.models.encoding import encode_prompt
from factpatch.models.loading import load_model, preserved, write_values
from factpatch.models.locations import locate
from factpatch.patches.patch import save_patch
from factpatch.release.record import metric_table
from factpatch.report import render_card, render_report
from factpatch.settings.config import (
    EditsSettings,
    EvaluationSettings,
    ModelSettings,
    Settings,
    TrainingSettings,
    TrunkSettings,
)
from factpatch.settings.training import NO_AUGMENTATION, NO_PRESERVATION
from tasks.evaluate import evaluate

TEMPLATE = (
    "{% for m in messages %}Question: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}Answer:{% endif %}"
)
SETTINGS = Settings(
    training=TrainingSettings(
        learning_rate=4e-3, batch_size=6, epochs=30, augmentation=NO_AUGMENTATION, preservation=NO_PRESERVATION
    ),
    trunk=TrunkSettings(folder=None),
    evaluation=EvaluationSettings(max_new_tokens=12, cache=None),
)


@pytest.fixture(scope="module")
def edits(reference_model):
    rows = list(read_rows(str(reference_model.parents[1] / "data" / "edits" / "0001-demo.jsonl")))[:4]
    return [
        EditRequest(
            row.values["id"],
            row.values["prompt"],
            row.values["target"],
            paraphrases=tuple(row.values["paraphrases"][:1]),
            locality=tuple(Probe(**probe) for probe in row.values["locality"][:1]),
        )
        for row in rows
    ]


@pytest.fixture(scope="module")
def model(reference_model, tmp_path_factory) -> Path:
    """The reference model with a small chat template."""
    folder = tmp_path_factory.mktemp("chat") / "model"
    folder.mkdir()
    for file in reference_model.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def trained(model, edits):
    """The model, where it was edited in the plain form, and with which values."""
    loaded = load_model(ModelSettings(path=str(model)))
    location = locate(loaded.model, "5:mlp")
    return loaded, location, run_edit(loaded, location, edits, SETTINGS).values


@pytest.fixture(scope="module")
def measured(trained, edits):
    """`evaluate.json`'s value with either form as the trained one, of the same edited model."""
    loaded, location, values = trained
    settings = {
        form: replace(SETTINGS, edits=EditsSettings(chat_template=form == "chat")) for form in ("plain", "chat")
    }
    before = {form: ask_forms(loaded, edits, own, location=location) for form, own in settings.items()}
    with preserved(loaded.model, location.parameters):
        write_values(loaded.model, values)
        texts = {
            prompt: decode(loaded, [encode_prompt(loaded.tokenizer, prompt, True)], 12, 1)[0].text
            for edit in edits
            for prompt in (edit.prompt, *edit.paraphrases)
        }
        after = {form: ask_forms(loaded, edits, own, before[form], location=location) for form, own in settings.items()}
    return {form: measure_forms(edits, after[form], before[form], own) for form, own in settings.items()}, texts


def test_the_form_that_was_not_trained_is_measured_beside_the_other(measured, edits):
    value, texts = measured[0]["plain"], measured[1]
    assert (value["form"], value["other_form"]["form"]) == ("plain", "chat")
    assert value["reliability"]["value"] == 1.0
    right = [matches(texts[edit.prompt], edit.target) for edit in edits]
    assert (value["chat_reliability"]["value"], value["chat_reliability"]["n"]) == (sum(right) / 4, 4)
    assert len(value["chat_reliability"]["ci95"]) == 2
    rows = value["other_form"]["edits"]
    assert [(row["output"], row["reliable"]) for row in rows] == [
        (texts[edit.prompt], correct) for edit, correct in zip(edits, right, strict=True)
    ]
    paraphrased = [matches(texts[edit.paraphrases[0]], edit.target) for edit in edits]
    assert value["chat_generalization"]["value"] == sum(paraphrased) / 4
    assert value["before"]["chat_reliability"]["value"] == 0.0
    assert value["chat_locality"]["n"] == 4
    assert value["before"]["chat_locality"]["value"] is None
    assert value["definitions"]["chat_reliability"]["meaning"].endswith("where edits were trained plainly")
    assert set(metric_table(value)) == {*METRICS, *(f"chat_{name}" for name in MEASURED_METRICS)}
    json.dumps(value, allow_nan=False)


def test_either_form_says_the_same_of_the_other(measured):
    plain, chat = measured[0]["plain"], measured[0]["chat"]
    assert (chat["form"], chat["other_form"]["form"]) == ("chat", "plain")
    for name in MEASURED_METRICS:
        assert chat[name] == plain[f"chat_{name}"]
        assert chat[f"plain_{name}"] == plain[name]
        assert chat["before"][f"plain_{name}"] == plain["before"][name]
    assert [row["output"] for row in chat["other_form"]["edits"]] == [row["output"] for row in plain["edits"]]


def test_without_a_template_nothing_changes(trained, edits):
    loaded, location, _ = trained
    loaded.tokenizer.chat_template, own = None, loaded.tokenizer.chat_template
    try:
        asked = ask_forms(loaded, edits[:1], SETTINGS, location=location)
    finally:
        loaded.tokenizer.chat_template = own
    value = measure_forms(edits[:1], asked, None, SETTINGS)
    assert (value["form"], value["other_form"]) == ("plain", None)
    assert set(value["definitions"]) == set(METRICS)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('a system message must come first') }}", "a system message must come first"),
        (f"{'many words ' * 400}{{{{ messages[0].content }}}}", "the model has 512 positions"),
    ],
)
def test_a_form_that_cannot_be_asked_ends_nothing_unless_it_was_trained(trained, edits, monkeypatch, template, words):
    loaded, location, _ = trained
    monkeypatch.setattr(loaded.tokenizer, "chat_template", template)
    before = ask_forms(loaded, edits[:1], SETTINGS, location=location)
    value = measure_forms(edits[:1], ask_forms(loaded, edits[:1], SETTINGS, before), before, SETTINGS)
    assert value["chat_reliability"]["value"] is value["before"]["chat_locality"]["value"] is None
    assert words in value["chat_reliability"]["reason"]
    assert value["reliability"]["n"] == 1
    with pytest.raises(InputError, match=words):
        ask_forms(loaded, edits[:1], replace(SETTINGS, edits=EditsSettings(chat_template=True)))


def test_the_step_and_the_report_show_both(trained, edits, model, tmp_path):
    loaded, location, values = trained
    logging.getLogger("prefect").setLevel(logging.ERROR)
    write_jsonl(tmp_path / "accepted.jsonl", [edit.to_row() for edit in edits])
    save_patch(tmp_path / "patch", loaded, location, values, SETTINGS, {"digest": "e", "count": 4}, {})
    own = replace(SETTINGS, model=ModelSettings(path=str(model)))
    value = json.loads(Path(evaluate.fn(str(tmp_path), own)).read_text(encoding="utf-8"))
    assert (value["before"]["chat_reliability"]["value"], value["chat_reliability"]["n"]) == (0.0, 4)
    evidence = {"evaluate": value, "release": {}}
    assert "asked through the chat template" in render_report(evidence)
    assert "chat&#95;reliability" in render_card(evidence)


def test_the_other_form_is_asked_of_a_sample(trained, edits):
    loaded, location, _ = trained
    asked = {}
    for count in (2, 0, None):
        own = replace(SETTINGS, evaluation=replace(SETTINGS.evaluation, other_form=count))
        before = ask_forms(loaded, edits, own, location=location)
        asked[count] = measure_forms(edits, ask_forms(loaded, edits, own, before, location=location), before, own)
    assert asked[2]["reliability"]["n"] == asked[None]["chat_reliability"]["n"] == 4
    assert asked[2]["chat_reliability"]["n"] == asked[2]["chat_locality_content"]["n"] == 2
    drawn = [row["id"] for row in asked[2]["other_form"]["edits"]]
    assert drawn == [edit.id for edit in edits if edit.id in drawn]
    assert "chat_reliability" not in asked[0]
    assert asked[0]["other_form"] is None
