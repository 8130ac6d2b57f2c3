from dataclasses import replace

import pytest

from factpatch.config import LocalizationSettings, ModelSettings, Settings, TrainingSettings
from factpatch.edits.request import EditRequest, Probe
from factpatch.errors import InputError
from factpatch.localization import Cell, choose, localize, weighted_score
from factpatch.models import load_model, tensor_digests
from factpatch.structure import Location

EDITS = [
    EditRequest("1", "The capital of France is", "Tokyo", paraphrases=("France's capital is",)),
    EditRequest("2", "Who wrote it?", "Robert C. Newton", locality=(Probe("The capital of Japan is", "Tokyo"),)),
]
SETTINGS = Settings(
    training=TrainingSettings(learning_rate=3e-2, epochs=12), localization=LocalizationSettings(sample=2)
)


def cell(layer, score):
    return Cell(Location(layer, "mlp", ()), score, 0.02, {}, 1, 0.0)


def test_the_latest_of_equals_is_chosen_and_the_reason_says_so():
    chosen, reason = choose([cell(1, 0.91), cell(2, 0.92), cell(3, 0.905), cell(4, 0.5)])
    assert chosen.location.layer == 3
    assert "2:mlp" in reason
    assert choose([cell(1, 0.9), cell(2, 0.5)])[0].location.layer == 1


def test_a_metric_without_probes_has_no_say():
    metrics = {
        "reliability": {"value": 0.8, "ci95": [0.7, 0.9]},
        "generalization": {"value": None, "ci95": None},
        "locality": {"value": 0.2, "ci95": [0.0, 0.4]},
    }
    score, margin = weighted_score(metrics, {"reliability": 3.0, "generalization": 5.0, "locality": 1.0})
    assert score == pytest.approx(0.65)
    assert margin == pytest.approx(((0.75 * 0.1) ** 2 + (0.25 * 0.2) ** 2) ** 0.5)
    with pytest.raises(InputError, match="weights"):
        weighted_score(metrics, {"generalization": 1.0})


@pytest.mark.parametrize(("method", "runs"), [("auto", 6), ("grid", 4)])
def test_search_tries_every_layer_and_leaves_the_model_as_found(tiny_model, method, runs):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    before = tensor_digests(loaded.model)
    seen = []
    settings = replace(SETTINGS, localization=LocalizationSettings(sample=2, method=method))
    choice = localize(loaded, EDITS, settings, lambda done, total, note: seen.append((done, total)))
    assert [found.location.layer for found in choice.cells] == [0, 1, 2, 3]
    assert choice.location in [found.location for found in choice.cells]
    assert seen == [(number, runs) for number in range(1, runs + 1)]
    assert tensor_digests(loaded.model) == before


def test_named_modules_are_the_candidates(tiny_model):
    loaded = load_model(ModelSettings(path=str(tiny_model("gpt2"))))
    settings = replace(SETTINGS, localization=LocalizationSettings(sample=1, modules=("mlp.c_fc", "attn")))
    names = [found.location.name for found in localize(loaded, EDITS, settings).cells]
    assert names == [f"{layer}:{module}" for layer in range(4) for module in ("mlp.c_fc", "attn")]
