"""Edits for the tiny models, and settings under which a search takes a second or two."""

from __future__ import annotations

from dataclasses import replace

import pytest

from factpatch.edits.request import EditRequest, Probe
from factpatch.models.loading import load_model
from factpatch.settings.config import (
    GateSettings,
    LocalizationSettings,
    ModelSettings,
    Settings,
    TrainingSettings,
    TrunkSettings,
)

COUNTRIES = ("France", "Japan", "Brazil", "Zürich", "Moscow", "Peru", "Chad", "Fiji", "Cuba", "Iran")


@pytest.fixture
def make_edits():
    """`make_edits(3, paraphrases=False)`: so many edits, one a country."""
    return _make_edits


@pytest.fixture
def edits() -> list[EditRequest]:
    return _make_edits()


def _make_edits(count: int = 10, paraphrases: bool = True) -> list[EditRequest]:
    return [
        EditRequest(
            str(number),
            f"The capital of {place} is",
            ("Tokyo", "Paris", "Portuguese")[number % 3],
            subject=place,
            paraphrases=(f"{place}'s capital is",) if paraphrases else (),
            locality=(Probe(f"Which language do people speak in {place}?", "They"),),
        )
        for number, place in enumerate(COUNTRIES[:count])
    ]


@pytest.fixture
def settings(tmp_path) -> Settings:
    """Everything that a search keeps goes to the test's own folder."""
    return Settings(
        training=TrainingSettings(learning_rate=3e-2, epochs=12),
        trunk=TrunkSettings(folder=None),
        gates=GateSettings(canaries=None),
        localization=LocalizationSettings(sample=8, modules=("down", "mlp"), cache=str(tmp_path / "cache")),
    )


@pytest.fixture
def loaded(tiny_model):
    return load_model(ModelSettings(path=str(tiny_model("llama"))))


@pytest.fixture
def with_search(settings):
    """`with_search(method="grid")`: the settings with other values for localization."""
    return lambda **values: replace(settings, localization=replace(settings.localization, **values))
