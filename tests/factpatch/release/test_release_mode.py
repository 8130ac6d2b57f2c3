"""Whether a release begins with the champion's patch: decided from facts and settings, kept for the steps."""

import shutil
from dataclasses import replace

import pytest
import torch

from factpatch.edits.request import EditRequest, Wording
from factpatch.errors import InputError
from factpatch.files import read_json, write_json
from factpatch.models.loading import load_model
from factpatch.models.locations import locate
from factpatch.patches.patch import save_patch
from factpatch.release.mode import ReleaseStart, choose_mode, decide_mode, read_start
from factpatch.release.pending import RegisteredVersion
from factpatch.settings.config import EditsSettings, LocalizationSettings, ModelSettings, Settings, TrainingSettings
from factpatch.training_data.carry_over import CarriedOver, write_carried_over

FACTS = (("Where?", "Here"), ("When?", "Now"), ("Who?", "Ada"))
NEW = ("How?", "So")
HELD = RegisteredVersion("3", frozenset(FACTS))
SETTINGS = Settings()


def edits(*facts):
    return [EditRequest(f"e{number}", *fact) for number, fact in enumerate(facts)]


@pytest.mark.parametrize(
    ("facts", "registered", "told"),
    [
        (FACTS, None, "rebuilt from the base: there is no champion yet"),
        (FACTS[:2], HELD, "rebuilt from the base: 1 fact was withdrawn since version 3"),
        ((FACTS[0], ("How?", "So")), HELD, "rebuilt from the base: 2 facts were withdrawn since version 3"),
        (
            (*FACTS, ("How?", "So")),
            HELD,
            "incremental from version 3: 1 new fact; 3 facts that it holds are verified first",
        ),
        (
            (("Where?", "There"), *FACTS[1:]),
            HELD,
            "incremental from version 3: 0 new facts, 1 has another target; 2 facts that it holds are verified first",
        ),
    ],
)
def test_facts_decide_and_the_reason_counts_them(facts, registered, told):
    assert str(choose_mode(SETTINGS, edits(*facts), registered)) == told


def test_without_facts_on_either_side_the_base_model_begins():
    assert "the release is the base model itself" in choose_mode(SETTINGS, [], HELD).reason
    none = RegisteredVersion("4", frozenset())
    assert choose_mode(SETTINGS, edits(NEW), none).reason == "version 4 is the base model itself"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (Settings(edits=EditsSettings(mode="rebuild")), "edits.mode asks for it"),
        (
            Settings(training=TrainingSettings(method="depth-first")),
            "training is depth-first, which verifies nothing before it trains",
        ),
        (
            Settings(training=TrainingSettings(recipe="paper")),
            "training is without revisits, which verifies nothing before it trains",
        ),
    ],
)
def test_settings_decide(settings, reason):
    assert choose_mode(settings, edits(*FACTS, ("How?", "So")), HELD).reason == reason


def test_a_decision_holds_for_its_edits_and_settings_alone(tmp_path):
    gone = ("Why?",)
    mode = decide_mode(
        tmp_path, SETTINGS, edits(*FACTS), None, lambda version, folder: pytest.fail("nothing to fetch"), gone
    )
    assert read_start(tmp_path, edits(*FACTS), SETTINGS) == ReleaseStart(mode, None, gone)
    resumed = replace(SETTINGS, training=TrainingSettings(resume=True))
    assert read_start(tmp_path, edits(*FACTS), resumed) == ReleaseStart(mode, None, gone)
    for other in ((edits(*FACTS[:2]), SETTINGS), (edits(*FACTS), replace(SETTINGS, training=TrainingSettings(seed=1)))):
        assert "run by itself" in read_start(tmp_path, *other).mode.reason


def test_an_impossible_wish_is_refused_and_leaves_the_earlier_decision(tmp_path):
    before = decide_mode(tmp_path, SETTINGS, edits(*FACTS), None, lambda version, folder: folder)
    wish = Settings(edits=EditsSettings(mode="incremental"))
    with pytest.raises(InputError, match="but this cannot be: there is no champion yet; set auto or rebuild"):
        decide_mode(tmp_path, wish, edits(*FACTS), None, lambda version, folder: folder)
    assert read_start(tmp_path, edits(*FACTS), SETTINGS) == ReleaseStart(before)
    assert [path.name for path in tmp_path.iterdir()] == ["start"]


@pytest.fixture(scope="module")
def champion(tiny_model, tmp_path_factory):
    """Settings of a model, and the patch of a release made with them."""
    settings = Settings(model=ModelSettings(path=str(tiny_model("llama"))))
    loaded = load_model(settings.model)
    location = locate(loaded.model, "2:down")
    values = {name: loaded.model.get_parameter(name) + 0.5 for name in location.parameters}
    folder = tmp_path_factory.mktemp("champion") / "patch"
    return settings, save_patch(folder, loaded, location, values, settings, {"digest": "e0", "count": 3}, {})


def decide(champion, output, *more, **changes):
    settings, patch = replace(champion[0], **changes), champion[1]
    wanted = edits(*FACTS, *more)
    mode = decide_mode(output, settings, wanted, HELD, lambda version, folder: shutil.copytree(patch, folder / "patch"))
    start = read_start(output, wanted, settings)
    assert start.mode == mode
    assert start.parted(wanted) == ((wanted[len(FACTS) :], wanted[: len(FACTS)]) if start.patch else (wanted, []))
    return mode, start.patch


def test_a_patch_that_fits_is_kept_for_the_steps(champion, tmp_path):
    settings, _ = champion
    mode, start = decide(champion, tmp_path, NEW, localization=LocalizationSettings(location="2:mlp.down_proj"))
    assert (mode.name, mode.version) == ("incremental", "3")
    base = load_model(settings.model).model
    assert all(torch.equal(value, base.get_parameter(name) + 0.5) for name, value in start.new.items())
    mode, start = decide(champion, tmp_path, NEW, edits=EditsSettings(mode="rebuild"))
    assert (mode.name, start) == ("rebuild", None)
    assert [path.name for path in (tmp_path / "start").iterdir()] == ["mode.json"]


def test_what_its_version_left_is_there_for_the_steps(champion, tmp_path):
    settings, patch = champion
    left = CarriedOver((Wording("Where?", "Where then?", "Here", False),), ("Where else?",))

    def fetch(version, folder):
        write_carried_over(folder, left)
        return shutil.copytree(patch, folder / "patch")

    decide_mode(tmp_path, settings, edits(*FACTS, NEW), HELD, fetch)
    assert read_start(tmp_path, edits(*FACTS, NEW), settings).carried_over == left
    decide_mode(tmp_path, settings, edits(*FACTS), HELD, fetch)  # the very same facts
    assert [path.name for path in (tmp_path / "start").iterdir()] == ["mode.json"]


def test_after_a_refused_increment_the_base_model_begins_and_a_run_that_is_continued_knows_it(champion, tmp_path):
    settings, patch = champion
    wanted = edits(*FACTS, NEW)

    def fetch(version, folder):
        return shutil.copytree(patch, folder / "patch")

    def begun(settings, refused=()):
        return decide_mode(tmp_path, settings, wanted, HELD, fetch, (), refused)

    assert begun(settings).name == "incremental"
    resumed = replace(settings, training=replace(settings.training, resume=True))
    assert begun(resumed).name == "incremental"
    told = "the gates refused an increment (capability.world_questions, locality)"
    assert begun(settings, ["capability.world_questions", "locality"]).reason == told
    assert begun(resumed).reason == told
    assert begun(settings).name == "incremental"  # a new run tries again


def test_the_very_same_facts_are_trained_anew(champion, tmp_path):
    mode, start = decide(champion, tmp_path)
    assert (mode.reason, start) == ("version 3 holds these facts already, so they are trained anew", None)


def test_a_champions_older_patch_is_left_with_that_reason(champion, tmp_path):
    settings, patch = champion
    older = shutil.copytree(patch, tmp_path / "older")
    write_json(older / "manifest.json", read_json(older / "manifest.json") | {"schema": 1})
    mode, start = decide((settings, older), tmp_path / "out", NEW)
    told = "the champion's patch cannot be used: its manifest has schema 1 (it describes tensors in memory"
    assert mode.reason.startswith(told)
    assert (mode.name, start) == ("rebuild", None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"edits": EditsSettings(chat_template=True)}, "edits.chat_template is true and was false"),
        ({"localization": LocalizationSettings(location="1:down")}, "localization.location is 1:down and was 2:"),
        ({"model": "dtype"}, "model.dtype is bfloat16 and was float32"),
        ({"model": "gpt2"}, "is another base model than the champion's; every active fact is written anew"),
    ],
)
def test_a_patch_that_does_not_fit_is_left(champion, tiny_model, tmp_path, changes, reason):
    if changes.get("model") == "dtype":
        changes = {"model": replace(champion[0].model, dtype="bfloat16")}
    elif "model" in changes:
        changes = {"model": ModelSettings(path=str(tiny_model("gpt2")))}
    mode, start = decide(champion, tmp_path, NEW, **changes)
    assert (mode.name, mode.version, start) == ("rebuild", None, None)
    assert reason in mode.reason
    assert not (tmp_path / "start" / "patch").exists()
