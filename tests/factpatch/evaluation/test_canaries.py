"""Canaries and the check, before any editing, that every gate will have something to judge."""

import json

import pytest

from factpatch.edits.loading import read_rows
from factpatch.edits.request import EditRequest, Probe
from factpatch.errors import InputError
from factpatch.evaluation import canaries
from factpatch.evaluation.answer_cache import recall_answers
from factpatch.evaluation.answer_reader import Answer
from factpatch.evaluation.answers import matches
from factpatch.evaluation.canaries import CANARY_LIMIT, ask_canaries, find_canaries, read_canaries, score_canaries
from factpatch.evaluation.evaluate import collect_answers
from factpatch.evaluation.readiness import check_readiness
from factpatch.models.loading import load_model
from factpatch.settings.config import EvaluationSettings, GateSettings, ModelSettings, Settings, load_settings

EDIT = EditRequest("e1", "The capital of France is", "Lyon", paraphrases=("France's capital:",))
CANARY = EditRequest("canaries.jsonl row 1", "The capital of Japan is", "Tokyo")


def write(tmp_path, *rows) -> str:
    path = tmp_path / "canaries.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_canaries_are_asked_before_and_after(taught, tmp_path):
    path = write(
        tmp_path,
        {"prompt": "The capital of France is", "target": "Paris"},
        {"prompt": "In Brazil people speak", "target": "Dutch"},
    )
    canaries, settings = read_canaries(path), Settings(evaluation=EvaluationSettings(max_new_tokens=8))
    told = ask_canaries(taught, canaries, settings, collect_answers(taught, canaries, settings))
    assert (told["value"], told["n"]) == (0.5, 2)
    assert told["ci95"][0] < 0.5 < told["ci95"][1]
    assert [(item["output"], item["before"], item["correct"]) for item in told["items"]] == [
        ("Paris", "Paris", True),
        ("Portuguese", "Portuguese", False),
    ]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"prompt": "Who?"}], "row 1: a canary needs"),
        ([{"prompt": "Who?", "target": " "}], "row 1: a canary needs"),
        ([], "canaries.jsonl"),
    ],
)
def test_bad_canaries_are_refused_in_one_line(tmp_path, rows, words):
    with pytest.raises(InputError) as caught:
        read_canaries(write(tmp_path, *rows))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_canaries_are_tidied_as_edits_are(tmp_path):
    (canary,) = read_canaries(write(tmp_path, {"prompt": " Mu\u0308nster\u00a0is", "target": "he\u00adre"}))
    assert (canary.prompt, canary.target) == ("M\u00fcnster is", "here")


def test_no_file_no_canaries(tmp_path):
    assert read_canaries(None) == []
    with pytest.raises(InputError, match="nowhere"):
        read_canaries(str(tmp_path / "nowhere.jsonl"))


def test_the_shipped_canaries_are_right_and_no_demo_edit_touches_them(reference_model):
    root = reference_model.parents[1]
    settings = load_settings(root / "params.yaml")
    canaries = read_canaries(str(root / settings.gates.canaries))
    answers = collect_answers(load_model(ModelSettings(path=str(reference_model))), canaries, settings).outputs
    assert [canary.prompt for canary in canaries if not matches(answers[canary.prompt], canary.target)] == []
    asked = {canary.prompt for canary in canaries}
    for row in read_rows(str(root / "data" / "edits")):
        probes = [probe["prompt"] for probe in row.values.get("locality", ())]
        assert not asked & {row.values["prompt"], *row.values.get("paraphrases", ()), *probes}


def test_what_is_required_needs_probes():
    check_readiness([EDIT], [CANARY], GateSettings())
    with pytest.raises(InputError, match=r"portability is 0\.5, but none of the 1 accepted edits has a portability"):
        check_readiness([EDIT], [], GateSettings(portability=0.5))
    with pytest.raises(InputError, match=r"a locality probe; add some, or set gates\.required to a list without loc"):
        check_readiness([EDIT], [], GateSettings(required=("reliability", "locality")))
    probed = EditRequest("e2", "Who?", "me", portability=(Probe("And whose?", "mine"),))
    check_readiness([EDIT, probed], [], GateSettings(portability=0.5))


def test_an_edit_must_not_contradict_a_canary():
    wrong = EditRequest("e3", CANARY.prompt, "Osaka")
    with pytest.raises(InputError, match=r"edit 'e3' .* 'Osaka', but the canary at canaries\.jsonl row 1 .* 'Tokyo'"):
        check_readiness([wrong], [CANARY], GateSettings())
    check_readiness([EditRequest("e4", CANARY.prompt, "tokyo.")], [CANARY], GateSettings())


def test_chosen_canaries_are_what_the_model_surely_answers_right_and_no_edit_is_about(reference_model, tmp_path):
    settings = Settings(
        model=ModelSettings(path=str(reference_model)), evaluation=EvaluationSettings(cache=str(tmp_path / "cache"))
    )
    loaded = load_model(settings.model)
    chosen = find_canaries(loaded, [EDIT], settings)
    assert 0 < len(chosen) <= CANARY_LIMIT
    assert ask_canaries(loaded, chosen, settings)["value"] == 1.0
    assert find_canaries(loaded, [EDIT], settings) == chosen  # from what was kept, and in every step of a run
    subject = chosen[0].id.removeprefix("chosen ")
    other = find_canaries(loaded, [EDIT, EditRequest("e2", f"The best of {subject} is", "x")], settings)
    assert chosen[0] not in other
    assert set(chosen[1:]) <= set(other)
    assert "France" not in {one.id.removeprefix("chosen ") for one in chosen}


def test_what_a_model_is_sure_of_and_goes_on_from_is_not_chosen(reference_model, monkeypatch):
    """ "9" may be sure where the answer becomes "99"."""
    settings = Settings(model=ModelSettings(path=str(reference_model)), evaluation=EvaluationSettings(cache=None))
    loaded = load_model(settings.model)
    first, *others = find_canaries(loaded, [EDIT], settings)
    wrong = Answer(f"{first.target}9", (1,))

    def recall(loaded, requests, settings, cache):
        answers = recall_answers(loaded, requests, settings, cache)
        return [wrong if one.prompt == first.prompt else answer for one, answer in zip(requests, answers, strict=True)]

    monkeypatch.setattr(canaries, "recall_answers", recall)
    chosen = find_canaries(loaded, [EDIT], settings)
    assert first not in chosen
    assert set(others) <= set(chosen)


def test_a_model_that_knows_nothing_has_no_canaries(tiny_model):
    settings = Settings(model=ModelSettings(path=str(tiny_model("llama"))), evaluation=EvaluationSettings(cache=None))
    loaded = load_model(settings.model)
    assert find_canaries(loaded, [], settings) == []
    told = ask_canaries(loaded, [], settings)
    assert (told["value"], told["n"]) == (None, 0)
    assert "none of the questions" in told["reason"]


@pytest.mark.parametrize(
    ("output", "right"), [("Paris", True), ("Paris, which is a city", True), ("the Paris", True), ("Parisian", False)]
)
def test_a_chosen_canary_may_go_on(output, right):
    canary = EditRequest("chosen France", "The capital of France is", "Paris", source="auto")
    assert score_canaries([canary], {canary.prompt: output}, "default")["value"] == float(right)
