"""Cells: what they share, that sharing changes no result, and how they are scored."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from factpatch.frozen_trunk import open_rows
from factpatch.frozen_trunk.activations import Activations
from factpatch.localization import trials
from factpatch.localization.heat_maps import draw
from factpatch.localization.places import candidate_locations, known_places
from factpatch.localization.record import judged
from factpatch.localization.score import Scorer
from factpatch.localization.trial_set import (
    PRESERVED_PER_EDIT,
    PROMPTS_ASKED,
    Question,
    TrialSet,
    from_json,
    make_trial_set,
    to_json,
)
from factpatch.localization.trials import SharedTrunk, Trial, run_trial
from factpatch.methods.base import EditJob
from factpatch.methods.breadth_first.training import breadth_first
from factpatch.models.loading import load_model, tensor_digests
from factpatch.models.locations import Location, locate
from factpatch.models.sampling import plain_text
from factpatch.settings.config import ModelSettings, override
from factpatch.settings.training import PreservationSettings

WEIGHTS = {"reliability": 1.0, "generalization": 1.0}


def exam_of(questions: int) -> TrialSet:
    """So many questions about reliability, and as many about generalization."""
    names = ("reliability", "generalization")
    return TrialSet((), questions, 1.0, tuple(Question(name, 0, None) for name in names for _ in range(questions)), ())


def cell_of(layer: int, right: str, whole: bool = True) -> Trial:
    return Trial(Location(layer, "mlp", ()), whole, tuple(mark == "1" for mark in right), 3, 10, 10 * (9 - layer), 1.0)


@pytest.fixture
def passes(monkeypatch) -> list[list[Activations]]:
    """What each pass through the trunk captures from now on: activations for each place that it serves."""
    found, real = [], trials.capture
    monkeypatch.setattr(trials, "capture", lambda *arguments: found.append(real(*arguments)) or found[-1])
    return found


def test_hidden_states_are_kept_once_for_all_places_of_a_layer(tiny_model, edits, settings, kind, passes):
    loaded = load_model(ModelSettings(path=str(tiny_model(kind))))
    trunk = SharedTrunk(loaded, make_trial_set(loaded, edits, settings, 8), settings)
    locations = [locate(loaded.model, f"1:{module}") for module in ("down", "up", "o", "")]
    trunk.prepare(locations)
    (served,) = passes
    assert len(served) == len(locations)
    assert len({kept.shards[0]["block"].data_ptr() for kept in served}) == 1


def test_a_cell_is_the_run_that_the_edit_step_would_make(tiny_model, edits, settings, kind):
    loaded = load_model(ModelSettings(path=str(tiny_model(kind))))
    trial_set = make_trial_set(loaded, edits, settings, 8)
    trunk = SharedTrunk(loaded, trial_set, settings)
    for module in ("down", "mlp", "attention", ""):
        location = locate(loaded.model, f"2:{module}")
        training = trials.trial_settings(settings, trial_set, whole=False)
        job = EditJob(loaded, location, trial_set.training_rows, training)
        with trunk.open(location) as (rows, _):
            shared = breadth_first(job, rows).values
        with open_rows(loaded, location, trial_set.training, settings.trunk) as rows:
            alone = breadth_first(job, rows).values
        assert all(torch.equal(shared[name], alone[name]) for name in location.parameters)


def test_a_cell_leaves_the_model_bit_for_bit_as_found(loaded, edits, settings):
    before = tensor_digests(loaded.model)
    trunk = SharedTrunk(loaded, make_trial_set(loaded, edits, settings, 8), settings)
    trial = run_trial(trunk, locate(loaded.model, "3:mlp"), settings, whole=True)
    assert tensor_digests(loaded.model) == before
    assert len(trial.right) == len(trunk.trial_set.questions)
    assert any(trial.right)


def test_names_like_the_subjects_are_kept_and_asked_where_there_are_no_probes(loaded, edits, settings):
    bare = [replace(edit, locality=(), subject=None) for edit in edits]
    trial_set, probed = make_trial_set(loaded, bare, settings, 8), make_trial_set(loaded, edits, settings, 8)
    told = [plain_text(loaded, question.row.ids) for question in trial_set.questions if question.metric == "locality"]
    kept = [plain_text(loaded, row.ids) for row in trial_set.training[trial_set.edits :]]
    assert 0 < len(told) <= PROMPTS_ASKED
    assert 0 < len(kept) <= PRESERVED_PER_EDIT * trial_set.edits
    assert all(text.startswith("The capital of ") for text in told + kept)
    assert not {text for text in told + kept if any(edit.prompt in text for edit in edits)}
    assert not set(told) & set(kept)
    assert {question.edit for question in probed.questions if question.metric == "locality"} <= set(range(8))


def test_nothing_that_nearly_is_held_out_is_kept(loaded, edits, settings, tmp_path):
    """As in training: near-duplicates of paraphrases, probes, prompts and canaries are left out too."""
    own = {"protected": "France's own capital is: sunny", "canaries": "The river of Paris is"}
    near = ["so, france's capital is", "Which language do people speak in the Peru", "the capital of Chad is?",
            "The river of Paris is the"]  # fmt: skip
    for name, texts in {"protected": [own["protected"], *near], "canaries": [own["canaries"]]}.items():
        rows = "".join(f'{{"prompt": "{text}", "target": "x"}}\n' for text in texts)
        (tmp_path / f"{name}.jsonl").write_text(rows)
    training = replace(settings.training, preservation=PreservationSettings(str(tmp_path / "protected.jsonl"), 0.0))
    gates = replace(settings.gates, canaries=str(tmp_path / "canaries.jsonl"))
    trial_set = make_trial_set(loaded, edits, replace(settings, training=training, gates=gates), 8)
    kept = trial_set.training[trial_set.edits :]
    assert {plain_text(loaded, row.ids[: row.prompt_length]) for row in kept} == {own["protected"]}


def test_nothing_is_kept_where_the_settings_keep_nothing(loaded, edits, settings):
    trial_set = make_trial_set(loaded, edits, override(settings, {"training.preservation.neighbours": 0}), 8)
    assert len(trial_set.training) == trial_set.edits == 8


def test_memory_bounds_what_is_kept_at_once(loaded, edits, settings, passes):
    tight = replace(settings, trunk=replace(settings.trunk, memory_gb=1e-9))
    trial_set = make_trial_set(loaded, edits, settings, 8)
    locations = [locate(loaded.model, f"{layer}:down") for layer in (1, 2)]
    found = []
    for some in (settings, tight):
        passes.clear()
        trunk = SharedTrunk(loaded, trial_set, some)
        trunk.prepare(locations)
        right = [run_trial(trunk, location, some, whole=False).right for location in locations]
        found.append((right, [len(served) for served in passes]))
    assert found == [(found[0][0], [2]), (found[0][0], [1, 1])]  # the same results, of one pass or of one a place


def test_a_run_whose_numbers_break_is_a_result(loaded, edits, settings, monkeypatch):
    from factpatch.errors import RefusedError

    def broken(*arguments, **options):
        raise RefusedError("the loss became nan")

    monkeypatch.setattr(trials, "breadth_first", broken)
    trial = run_trial(
        SharedTrunk(loaded, make_trial_set(loaded, edits, settings, 8), settings),
        locate(loaded.model, "1:mlp"),
        settings,
        True,
    )
    assert trial.failure == "the loss became nan"
    assert not any(trial.right)


def test_an_exam_survives_its_file(loaded, edits, settings):
    trial_set = make_trial_set(loaded, edits, settings, 8)
    assert from_json(to_json(trial_set)) == trial_set
    assert trial_set.edits == 8
    assert {question.metric for question in trial_set.questions} >= {"reliability", "generalization"}


def test_equals_are_told_by_the_pairs_and_the_latest_is_taken():
    scorer = Scorer(exam_of(10), WEIGHTS)
    best = cell_of(1, "1" * 20)
    near, far = cell_of(3, "1" * 19 + "0"), cell_of(4, "1" * 10 + "0" * 10)
    assert [one.layer for one in scorer.rank([best, near, far])] == [3, 1, 4]
    fall, low, high = scorer.fall(best, far)
    assert fall == pytest.approx(0.5)
    assert 0.1 < low < 0.5 < high < 0.9
    record = judged("auto", scorer, [best, near, far], 10, (), (), ())
    assert record["location"]["name"] == "3:mlp"
    assert record["choice"]["price"]["than"] == "1:mlp"
    assert record["choice"]["price"]["quality"] == pytest.approx(0.05)
    assert record["choice"]["price"]["operations"] == pytest.approx(6 / 8)
    assert record["runner_up"]["location"] == "1:mlp"


def test_a_whole_run_counts_before_a_short_one():
    scorer = Scorer(exam_of(10), WEIGHTS)
    trials = [cell_of(1, "1" * 20, whole=False), cell_of(2, "0" * 20, whole=False), cell_of(2, "1" * 12 + "0" * 8)]
    record = judged("auto", scorer, trials, 10, (), (), ())
    assert record["location"]["name"] == "2:mlp"
    assert record["cost"]["trials"] == 3
    assert [trial["run"] for trial in record["candidates"]] == ["short", "whole"]


def test_a_metric_without_questions_has_no_say():
    trial_set = TrialSet((), 4, 1.0, tuple(Question("reliability", 0, None) for _ in range(4)), ())
    scored = Scorer(trial_set, {"reliability": 1.0, "generalization": 5.0}).score(cell_of(0, "1101"))
    assert scored.score == pytest.approx(0.75)
    assert scored.metrics["generalization"]["value"] is None


def test_published_places_are_known_by_type_depth_and_width(loaded):
    assert known_places(loaded.model) == []
    shape = {"vocab_size": 8, "hidden_size": 4096, "intermediate_size": 8, "num_hidden_layers": 32}
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        llama = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **shape))
    (place,) = known_places(llama)
    assert place.location.name == "22:mlp.down_proj"
    assert "2509.22072" in place.source


@pytest.mark.parametrize("layers", [8, 80])
def test_pictures_are_readable_for_few_and_many_layers(tmp_path, layers):
    from PIL import Image

    trial_set = exam_of(4)
    trial_set = replace(trial_set, questions=(*trial_set.questions, Question("locality", 0, None)))
    trials = [
        replace(cell_of(layer, "1" * 9), location=Location(layer, module, ()))
        for layer in range(layers)
        for module in ("mlp", "mlp.down_proj", "self_attn", "")
    ]
    record = judged("grid", Scorer(trial_set, WEIGHTS), trials, 4, (), (), ())
    width, height = Image.open(draw(record, tmp_path)).size
    assert width > 600 + 8 * layers
    assert height > 400
    assert draw({**record, "candidates": []}, tmp_path) is None


def test_every_role_is_a_candidate_where_no_module_is_named(loaded, with_search):
    names = [location.name for location in candidate_locations(loaded.model, with_search(modules=()).localization)]
    assert len(names) == len(set(names)) == 40
    assert {"0:self_attn.q_proj", "3:mlp.gate_proj", "2:self_attn", "1:mlp", "3:"} <= set(names)
