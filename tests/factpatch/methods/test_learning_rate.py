"""The step size that fits a location where none is given."""

from dataclasses import replace

import pytest
import torch

from factpatch.errors import InputError, RefusedError
from factpatch.methods.learning_rate import RELATIVE_STEP, with_step_size
from factpatch.models.loading import load_model
from factpatch.models.locations import locate
from factpatch.settings.config import ModelSettings, TrainingSettings, load_settings


def test_it_is_a_share_of_the_located_matrices_own_size(tiny_model):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    location = locate(loaded.model, "1:down")
    (name,) = location.parameters
    with torch.no_grad():
        loaded.model.get_parameter(name).copy_(torch.full_like(loaded.model.get_parameter(name), -0.2))
    found = with_step_size(TrainingSettings(), loaded.model, location)
    assert found.step_size == pytest.approx(0.2 * RELATIVE_STEP)
    given = replace(found, learning_rate=0.5)
    assert with_step_size(given, loaded.model, location) is given
    with torch.no_grad():
        loaded.model.get_parameter(name).zero_()
    with pytest.raises(RefusedError, match=r"every value at 1:mlp\.down_proj is zero"):
        with_step_size(TrainingSettings(), loaded.model, location)


def test_a_number_or_auto_is_taken_and_nothing_else(tmp_path):
    (tmp_path / "params.yaml").write_text("training: {learning_rate: auto}\n")
    assert load_settings(tmp_path / "params.yaml").training.learning_rate == "auto"
    assert load_settings(tmp_path / "params.yaml", {"training.learning_rate": "5e-4"}).training.step_size == 5e-4
    for wrong, words in (("fast", "must be a number"), (0.0, "must be at least 1e-09")):
        with pytest.raises(InputError, match=words):
            load_settings(tmp_path / "params.yaml", {"training.learning_rate": wrong})
