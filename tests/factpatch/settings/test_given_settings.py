"""Settings that a program gives: whatever their form, nothing is kept on disk that they do not name."""

import pytest

from factpatch.errors import InputError
from factpatch.settings.config import Settings
from factpatch.settings.given import NOTHING_KEPT, settings_from


def value(settings: Settings, name: str):
    section, _, key = name.partition(".")
    return getattr(getattr(settings, section), key)


def test_nothing_is_kept_unless_it_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("training:\n  epochs: 3\ntrunk:\n  folder: kept\n")
    quiet = settings_from(None)
    assert {value(quiet, name) for name in NOTHING_KEPT} == {None}
    assert quiet.training.epochs == Settings().training.epochs  # a file that happens to lie here is not read
    read = settings_from("params.yaml")
    assert (read.training.epochs, read.trunk.folder, read.evaluation.cache) == (3, "kept", None)
    assert settings_from({"trunk": {"folder": "kept"}}).trunk.folder == "kept"
    whole = Settings()
    assert settings_from(whole) is whole


def test_sections_and_dotted_names_may_be_mixed():
    found = settings_from({"training": {"epochs": 8}, "training.seed": 4, "edits.columns": {"locality.prompt": "a.b"}})
    assert (found.training.epochs, found.training.seed) == (8, 4)
    assert found.edits.columns == {"locality.prompt": "a.b"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"training": {"epoch": 8}}, "settings: unknown key 'training.epoch'; did you mean 'training.epochs'"),
        ({"epochs": 8}, "settings: unknown key 'epochs'"),
        ({"training.epochs": "many"}, "training.epochs is 'many'; it must be a whole number"),
        ({"training": 8}, "'training' must be a section"),
        (8, "settings are 8; give a dict"),
        ("absent.yaml", "'absent.yaml' cannot be read"),
    ],
)
def test_what_does_not_fit_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        settings_from(given)
