"""A tiny model with two facts written into it, as delivery takes them: its patch, measured facts, settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from factpatch.editing import run_edit
from factpatch.edits.request import EditRequest
from factpatch.models.loading import LoadedModel, load_model
from factpatch.models.locations import locate
from factpatch.patches.patch import Patch, read_patch, save_patch
from factpatch.settings.config import (
    EvaluationSettings,
    ModelSettings,
    Settings,
    TrainingSettings,
    TrunkSettings,
)

FACTS = (
    EditRequest("e1", "The capital of France is", "Lyon"),
    EditRequest("e2", "Which language do people speak in Brazil?", "Dutch"),
)


@dataclass(frozen=True)
class Written:
    """A loaded base model and a patch of it that holds FACTS."""

    loaded: LoadedModel
    patch: Patch
    settings: Settings


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> Callable[..., Written]:
    """`written(model, "2:mlp")` trains FACTS there; a `rank` trains low-rank factors. Made once each."""
    made: dict[object, Written] = {}

    def make(model: Path, place: str, rank: int | None = None) -> Written:
        key = (model, place, rank)
        if key not in made:
            settings = Settings(
                model=ModelSettings(path=str(model)),
                training=TrainingSettings(learning_rate=1e-2, epochs=150, rank=rank),
                trunk=TrunkSettings(folder=None),
                evaluation=EvaluationSettings(max_new_tokens=16),
            )
            loaded = load_model(settings.model)
            location = locate(loaded.model, place)
            values = run_edit(loaded, location, FACTS, settings).values
            folder = tmp_path_factory.mktemp("written") / "patch"
            save_patch(folder, loaded, location, values, settings, {"digest": "e0", "count": 2}, {"epochs": 1})
            made[key] = Written(loaded, read_patch(folder), settings)
        return made[key]

    return make
