import re

import pytest
import yaml

from factpatch.errors import InputError
from factpatch.settings.config import Settings, load_settings, override, to_dict, with_overrides
from factpatch.settings.training import AugmentationSettings, PreservationSettings


def write(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return path


def test_defaults_without_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_settings() == Settings()


def test_the_shipped_file_is_read_and_names_files_that_exist(reference_model):
    root = reference_model.parents[1]
    settings = load_settings(root / "params.yaml")
    assert (root / settings.training.preservation.prompts).exists()
    assert (root / settings.model.path / "config.json").exists()
    assert settings.validation == Settings().validation


def test_file_then_overrides_win(tmp_path):
    path = write(tmp_path, "training:\n  learning_rate: 5e-4\n  epochs: 3\n")
    settings = load_settings(path, {"training.epochs": 7, "model.path": "here"})
    assert (settings.training.learning_rate, settings.training.epochs, settings.model.path) == (5e-4, 7, "here")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("trainig: {}", "did you mean 'training'"),
        ("training:\n  lerning_rate: 1", "did you mean 'training.learning_rate'"),
        ("training:\n  epochs: many", "whole number"),
        ("training:\n  epochs: true", "whole number"),
        ("training:\n  epochs: 0", "training.epochs is 0"),
        ("training:\n  learning_rate: .nan", "training.learning_rate is nan"),
        ("training:\n  method: sideways", "breadth-first, depth-first"),
        ("gates:\n  reliability: 95", "at most 1"),
        ("training: {preservation: {prompts: p.jsonl, weight: 0}}", "raise training.preservation.weight"),
        ("training: {preservation: {neighbours: 2, ratio: 0, least: 0}}", "raise training.preservation.ratio"),
        ("training: {protect: p.jsonl}", "'training.protect' is now 'training.preservation.prompts'"),
        ("training: {adaptive: true}", "'training.adaptive' is no longer there"),
        ("training: {preservation: {promts: p}}", "did you mean 'training.preservation.prompts'"),
        ("training: {preservation: 3}", "'training.preservation' must be a section"),
        ("training: {preservation: {loss: both}}", "choose one of kl, cross-entropy"),
        ("training: {augmentation: {templates: t.jsonl, wordings: 0}}", "training.augmentation.wordings is 0"),
        ("training: 3", "section"),
        ("edits: {limit: 0}", "edits.limit is 0; it must be at least 1"),
        ("localization: {budget_edits: -5}", "localization.budget_edits is -5"),
        (
            "localization: {weights: {reliabilty: 1}}",
            "names 'reliabilty'; known here: reliability",
        ),
        ("localization: {weights: {locality: -1}}", "localization.weights.locality is -1"),
        ("- a", "sections"),
        ("a: [", "not YAML"),
        ("model:\n  path: !!python/object/apply:os.system [true]", "not YAML"),
    ],
)
def test_bad_settings_are_refused_in_one_line(tmp_path, text, words):
    with pytest.raises(InputError) as caught:
        load_settings(write(tmp_path, text))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_override_of_a_section_that_is_none_is_refused_too(tmp_path):
    with pytest.raises(InputError, match="'training' must be a section"):
        load_settings(write(tmp_path, "training: 3"), {"training.epochs": 2})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.yaml"):
        load_settings(tmp_path / "nowhere.yaml")


def test_to_dict_is_plain(tmp_path):
    assert to_dict(Settings())["training"]["batch_size"] == Settings().training.batch_size


def test_the_papers_recipe_sets_what_the_paper_says(tmp_path):
    """LocFT-BF, arXiv 2509.22072: Adam at a constant 5e-4, batches of 100, at most 25 epochs, stop at 0.01."""
    path = write(tmp_path, "training: {recipe: paper, seed: 4, learning_rate: 5e-4, rank: null}\n")
    training = load_settings(path).training
    assert (training.method, training.learning_rate, training.schedule) == ("breadth-first", 5e-4, "constant")
    assert (training.batch_size, training.rows_a_step(3000), training.epochs) == (100, 100, 25)
    assert (training.revisit, training.stop_loss, training.preservation.prompts) == (False, 0.01, None)
    assert training.seed == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("training.epochs", 3),
        ("training.method", "depth-first"),
        ("training.learning_rate", 1e-3),
        ("training.preservation.neighbours", 5),
        ("training.augmentation.both_forms", True),
    ],
)
def test_a_key_that_contradicts_the_recipe_is_refused(tmp_path, name, value):
    told = rf"training\.recipe is 'paper', which sets {re.escape(name)} to .*, but it is"
    path = write(tmp_path, "training: {recipe: paper}\n")
    with pytest.raises(InputError, match=told):
        load_settings(path, {name: value})
    with pytest.raises(InputError, match=told):
        load_settings(write(tmp_path, yaml.safe_dump(with_overrides({"training": {"recipe": "paper"}}, {name: value}))))
    assert load_settings(path, {name: value, "training.recipe": "own"}).training.recipe == "own"


def test_values_by_dotted_name_stand_in_for_those_of_other_settings():
    settings = override(Settings(), {"training.preservation.weight": 2, "training.augmentation.prefixes": 1})
    assert settings.training.preservation == PreservationSettings(weight=2.0)
    assert settings.training.augmentation == AugmentationSettings(prefixes=1)
    assert override(settings, {}) == settings


@pytest.mark.parametrize(
    ("written", "meant"), [("true", "auto"), ("false", "never"), ("wait", "wait"), ("auto", "auto")]
)
def test_promotion_is_one_of_three_ways(tmp_path, written, meant):
    assert load_settings(write(tmp_path, f"registry: {{promote: {written}}}\n")).registry.promote == meant
    with pytest.raises(InputError, match=r"registry\.promote is 'always'; choose one of auto, wait, never"):
        load_settings(write(tmp_path, "registry: {promote: always}\n"))
