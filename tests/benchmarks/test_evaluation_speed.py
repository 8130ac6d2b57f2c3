"""The speed benchmark compares what it claims to, and would see a difference."""

import pytest

from benchmarks import evaluation_speed
from factpatch.edits.request import EditRequest, Probe
from factpatch.models.loading import load_model
from factpatch.models.locations import locate
from factpatch.settings.config import EvaluationSettings, ModelSettings, Settings

EDITS = [
    EditRequest(str(number), f"{place} is a city in", "Japan", locality=(Probe(f"In {place} people speak", ""),))
    for number, place in enumerate(("Tokyo", "Lyon", "St. Louis"))
]


@pytest.fixture
def measured(tiny_model):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    location = locate(loaded.model, "2:mlp.down_proj")
    values = {name: 1.5 * loaded.model.get_parameter(name) for name in location.parameters}
    settings = Settings(evaluation=EvaluationSettings(batch_size=2, max_new_tokens=4))
    return lambda: list(evaluation_speed.evaluation_round(loaded, EDITS, settings, location, values, seed=1))


def test_both_ways_give_the_same_texts_before_and_after(measured):
    lines = measured()
    assert [line.name for line in lines][:2] == ["before the edit", "after the edit"]
    assert all(line.items == 6 and line.different == 0 for line in lines)
    assert all(line.plain.clock > 0 and line.own.processor > 0 for line in lines)


def test_a_difference_is_counted(measured, monkeypatch):
    honest = evaluation_speed.generate_everything

    def wrong(*arguments):
        texts = honest(*arguments)
        return texts | {EDITS[0].prompt: "Japan"}

    monkeypatch.setattr(evaluation_speed, "generate_everything", wrong)
    assert all(line.different == 2 for line in measured())  # a text, and with it a verdict
