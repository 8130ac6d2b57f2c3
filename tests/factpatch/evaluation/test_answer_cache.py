"""Answers that are kept on disk: asked once for each model, bounded, and never taken from a damaged file."""

import json
import os
from dataclasses import astuple, replace
from pathlib import Path

import pytest
import torch

import factpatch.evaluation.answer_cache as module
from factpatch.edits.request import EditRequest, Probe
from factpatch.errors import InputError
from factpatch.evaluation.answer_cache import AnswerCache, open_answer_cache, recall_answers, recall_evaluated
from factpatch.models.loading import load_model
from factpatch.settings.config import (
    EvaluationSettings,
    GateSettings,
    ModelSettings,
    Settings,
    TrainingSettings,
    TrunkSettings,
)
from factpatch.settings.training import PreservationSettings
from factpatch.training_data.rows import find_training_rows

PROMPTS = ("Where?", "When is it?", "Who was he?")


@pytest.fixture
def loaded(tiny_model):
    return load_model(ModelSettings(path=str(tiny_model("llama"))))


def settings_with(folder: Path | None, tokens: int = 8) -> Settings:
    cache = None if folder is None else str(folder)
    return Settings(evaluation=EvaluationSettings(cache=cache, max_new_tokens=tokens), trunk=TrunkSettings(folder=None))


def ask(loaded, settings, *prompts):
    """The answers, and which prompts were put to the model."""
    asked, collect = [], module.collect_answers

    def spy(loaded, requests, settings, **options):
        asked.extend(one.prompt for one in requests)
        return collect(loaded, requests, settings, **options)

    with pytest.MonkeyPatch.context() as patch, open_answer_cache(loaded, settings) as cache:
        patch.setattr(module, "collect_answers", spy)
        answers = recall_answers(loaded, [EditRequest("1", prompt, "") for prompt in prompts], settings, cache)
    return answers, asked


def test_only_what_is_new_is_asked_and_answers_are_those_of_the_model(loaded, tmp_path):
    settings = settings_with(tmp_path / "kept")
    first, asked = ask(loaded, settings, *PROMPTS[:2])
    assert asked == list(PROMPTS[:2])
    again, asked = ask(loaded, settings, PROMPTS[2], *PROMPTS[:2], PROMPTS[0])
    assert asked == [PROMPTS[2]]
    assert again[1:] == [*first, first[0]]
    assert again[:3] == ask(loaded, settings_with(None), PROMPTS[2], *PROMPTS[:2])[0]


def test_an_evaluation_before_the_edit_is_asked_once(loaded, tmp_path, monkeypatch):
    settings = settings_with(tmp_path, 16)
    edits = [
        EditRequest(
            str(number),
            prompt,
            "Rome",
            paraphrases=(f"Say: {prompt}", PROMPTS[0]),
            locality=(Probe(f"Near {prompt}", "here"), Probe(PROMPTS[1], "")),
            portability=(Probe(f"So {prompt}", "yes"),),
        )
        for number, prompt in enumerate(PROMPTS)
    ]
    wanted = module.collect_answers(loaded, edits, settings)
    asked, collect = [], module.collect_answers

    def spy(loaded, requests, *others, **options):
        asked.extend(one.id for one in requests)
        return collect(loaded, requests, *others, **options)

    monkeypatch.setattr(module, "collect_answers", spy)
    reported = []
    for count, names in ((2, ["0", "1"]), (3, ["2"]), (3, [])):
        asked.clear()
        with open_answer_cache(loaded, settings) as cache:
            told = recall_evaluated(loaded, edits[:count], settings, cache, lambda *at: reported.append(at))
        assert [name for name in asked if name] == names
    assert all(done <= total for done, total in reported)
    for pair, share in told.token_accuracy.items():
        assert share == pytest.approx(wanted.token_accuracy[pair], abs=1e-6)
    assert told.said.keys() == wanted.said.keys()
    for prompt, ids in wanted.said.items():
        assert told.said[prompt][: len(ids)] == ids[: len(told.said[prompt])]
    assert all(told.said[prompt] == wanted.said[prompt] for edit in edits for prompt, _ in map(astuple, edit.locality))


def test_another_chat_template_is_asked_anew(loaded, tmp_path):
    settings = settings_with(tmp_path)
    ask(loaded, settings, *PROMPTS)
    loaded.tokenizer.chat_template = "{{ messages[0].content }}"
    assert ask(loaded, settings, *PROMPTS)[1] == list(PROMPTS)


def test_another_model_or_length_is_asked_anew(loaded, tmp_path):
    settings = settings_with(tmp_path)
    ask(loaded, settings, *PROMPTS)
    assert ask(loaded, settings_with(tmp_path, 9), *PROMPTS)[1] == list(PROMPTS)
    with torch.no_grad():
        loaded.model.get_parameter("model.layers.3.mlp.down_proj.weight")[0, 0] += 1e-3
    assert ask(loaded, settings, *PROMPTS)[1] == list(PROMPTS)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-9], lambda text: text.replace('": "', '": "!', 2), lambda _: "[]"]
)
def test_a_damaged_file_is_asked_anew_and_replaced(loaded, tmp_path, damage):
    settings = settings_with(tmp_path)
    wanted, _ = ask(loaded, settings, *PROMPTS)
    (path,) = tmp_path.iterdir()
    whole = path.read_text(encoding="utf-8")
    path.write_text(damage(whole), encoding="utf-8")
    assert ask(loaded, settings, *PROMPTS) == (wanted, list(PROMPTS))
    assert path.read_text(encoding="utf-8") == whole


def test_what_was_not_asked_for_longest_goes_first(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ANSWER_LIMIT", 2)
    settings = settings_with(tmp_path)
    ask(loaded, settings, *PROMPTS[:2])
    ask(loaded, settings, PROMPTS[0], PROMPTS[2])
    assert ask(loaded, settings, PROMPTS[0], PROMPTS[2])[1] == []
    assert ask(loaded, settings, PROMPTS[1])[1] == [PROMPTS[1]]
    (here,) = tmp_path.iterdir()
    for age, name in enumerate(("new", "old")):
        (tmp_path / f"{name}.json").write_text(json.dumps("x" * 1000))
        os.utime(tmp_path / f"{name}.json", (1000 - age, 1000 - age))
    monkeypatch.setattr(module, "CACHE_BYTES", 1500)
    ask(loaded, settings, PROMPTS[0])
    assert {path.name for path in tmp_path.iterdir()} == {here.name, "new.json"}


def test_a_run_that_fails_keeps_nothing(loaded, tmp_path):
    with pytest.raises(ZeroDivisionError), open_answer_cache(loaded, settings_with(tmp_path)) as cache:
        cache.recall("answer", ["a"], lambda places: [1 // 0 for _ in places])
    assert list(tmp_path.iterdir()) == []
    assert AnswerCache({}).recall("n", [1, 2, 1], lambda places: places) == [2, 1, 2]


def test_a_folder_that_cannot_be_written_is_bad_input(loaded, tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match=r"evaluation\.cache '.*file/x' cannot be written"),
        open_answer_cache(loaded, settings_with(tmp_path / "file" / "x")),
    ):
        pytest.fail("the block must not run")


def test_companions_are_the_same_from_memory(reference_model, tmp_path, monkeypatch):
    loaded = load_model(ModelSettings(path=str(reference_model)))
    rows = (reference_model.parents[1] / "data" / "edits" / "0001-demo.jsonl").read_text(encoding="utf-8").splitlines()
    edits = [EditRequest.from_row(json.loads(row)) for row in rows[:10]]
    settings = replace(
        settings_with(tmp_path),
        training=TrainingSettings(preservation=PreservationSettings(neighbours=2.0)),
        gates=GateSettings(canaries=None),
    )
    anew = find_training_rows(loaded, edits, settings)
    with monkeypatch.context() as patch:
        for name in ("decode", "verify"):
            patch.setattr(f"factpatch.evaluation.evaluate.{name}", lambda *_: pytest.fail("the model was asked again"))
        patch.setattr("factpatch.training_data.templates.verify", lambda *_: pytest.fail("the model was asked again"))
        assert find_training_rows(loaded, edits, settings) == anew
    assert anew == find_training_rows(loaded, edits, replace(settings, evaluation=EvaluationSettings(cache=None)))
