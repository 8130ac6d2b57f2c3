"""What a release rests on besides its facts, and refused attempts that the registry does not hold."""

import json
import shutil
from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file

import factpatch.models.sources.identity as identity
from factpatch.models.sources.identity import model_identity
from factpatch.release.provenance import parse_provenance, provenance_of, why_changed, write_provenance
from factpatch.release.refusals import REFUSAL_LIMIT, attempt_digest, find_refusal, remember_refusal
from factpatch.settings.config import (
    EditsSettings,
    GateSettings,
    LocalizationSettings,
    ModelSettings,
    RegistrySettings,
    Settings,
    TrainingSettings,
)


@pytest.fixture
def model(tiny_model, tmp_path):
    return shutil.copytree(tiny_model("llama"), tmp_path / "model")


def settings_with(model, **changes) -> Settings:
    return Settings(model=ModelSettings(path=str(model)), **changes)


def released(tmp_path, used, configured, place="5:mlp"):
    value = json.loads(
        write_provenance(tmp_path, provenance_of(used), provenance_of(configured)).read_text(encoding="utf-8")
    )
    return parse_provenance(value, place)


def test_a_model_is_known_by_its_content_wherever_it_lies(model, tmp_path, monkeypatch):
    known = model_identity(str(model))
    assert model_identity(str(shutil.copytree(model, tmp_path / "copy"))) == known
    (model / "README.md").write_text("about it")
    assert model_identity(str(model)) == known
    monkeypatch.setattr(identity, "WHOLLY_READ_BYTES", 1000)  # the weights are looked at in samples
    sampled = model_identity(str(model))
    weights = load_file(model / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"] *= 1.01
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    assert model_identity(str(model)) not in (known, sampled)
    assert model_identity("./absent") is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"edits": EditsSettings(chat_template=True)}, "edits.chat_template is true and was false"),
        ({"localization": LocalizationSettings(location="5:mlp")}, None),  # where it wrote
        ({"localization": LocalizationSettings(location="3:mlp")}, "localization.location is 3:mlp and was 5:mlp"),
        ({"training": TrainingSettings(seed=1)}, None),
    ],
)
def test_what_changed_is_told_in_words(model, tmp_path, changes, reason):
    before = released(tmp_path, settings_with(model), settings_with(model))
    assert why_changed(provenance_of(settings_with(model, **changes)), before) == reason


def test_a_release_on_another_base_by_hand_stays_until_the_configuration_changes(model, tmp_path):
    other = shutil.copytree(model, tmp_path / "other")
    (other / "generation_config.json").write_text("{}")
    usual, by_hand = settings_with(model), settings_with(other)
    before = released(tmp_path, by_hand, usual)
    assert why_changed(provenance_of(usual), before) is None
    assert why_changed(provenance_of(by_hand), before) is None
    third = replace(usual, model=replace(usual.model, dtype="bfloat16"))
    assert why_changed(provenance_of(third), before) == "model.dtype is bfloat16 and was float32"
    before = released(tmp_path, usual, usual)
    told = f"the base model is '{other}' and was '{model}'"
    assert why_changed(provenance_of(by_hand), before) == told
    (model / "config.json").write_text((model / "config.json").read_text() + "\n")
    assert why_changed(provenance_of(usual), before) == f"the base model in '{model}' is not what it was"
    assert why_changed(provenance_of(usual), ()) is None  # nothing is known of versions of earlier times


def test_names_decide_where_no_model_can_be_had(tmp_path):
    before = released(tmp_path, settings_with("./gone"), settings_with("./gone"))
    assert why_changed(provenance_of(settings_with("./gone")), before) is None
    assert why_changed(provenance_of(settings_with("./new")), before) == "the base model is './new' and was './gone'"


def test_an_attempt_is_another_with_other_rows_base_settings_or_files(model, tmp_path):
    (tmp_path / "canaries.jsonl").write_text("{}")
    settings = settings_with(model, gates=GateSettings(canaries=str(tmp_path / "canaries.jsonl")))
    rows, provenance = [{"prompt": "p", "target": "t"}], provenance_of(settings)
    known = attempt_digest(settings, rows, provenance)
    resumed = replace(settings, training=TrainingSettings(resume=True))
    assert attempt_digest(resumed, rows, provenance) == known
    others = {
        attempt_digest(settings, [{**rows[0], "paraphrases": ["q"]}], provenance),
        attempt_digest(settings, rows, replace(provenance, identity="another")),
        attempt_digest(replace(settings, training=TrainingSettings(epochs=3)), rows, provenance),
    }
    (tmp_path / "canaries.jsonl").write_text("{} ")
    others.add(attempt_digest(settings, rows, provenance))
    assert len({*others, known}) == 5


def test_refusals_are_remembered_up_to_a_number_and_a_damaged_file_is_none(tmp_path):
    registry = RegistrySettings(name="a b", tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert find_refusal(registry, "0") is None
    for number in range(REFUSAL_LIMIT + 1):
        path = remember_refusal(registry, str(number), ["locality"])
    assert path == tmp_path / "refused" / "a b.json"
    assert find_refusal(registry, "0") is None
    assert find_refusal(registry, "1").gates == ("locality",)
    assert find_refusal(replace(registry, name="other"), "1") is None
    path.write_text(path.read_text()[:-5])
    assert find_refusal(registry, "1") is None
    remember_refusal(registry, "1", [])
    assert find_refusal(registry, "1").gates == ()
