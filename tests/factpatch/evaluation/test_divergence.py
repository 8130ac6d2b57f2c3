"""How far what a model expects moved: by hand, and on a model whose values moved."""

import math

import pytest
import torch

from factpatch.edits.request import EditRequest, Probe
from factpatch.evaluation import divergence as module
from factpatch.evaluation.divergence import divergences, drawn_probes, first_distributions
from factpatch.models.encoding import encode_prompt
from factpatch.models.loading import preserved
from factpatch.models.locations import locate
from factpatch.settings.config import Settings, TrunkSettings

SETTINGS = Settings(trunk=TrunkSettings(folder=None))
PROMPTS = ["The capital of France is", "His currency is the", "東京 is a city in"]


def test_a_divergence_by_hand():
    half, quarter = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    (found,) = divergences(half.half(), quarter.half())
    assert found == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), abs=1e-3)
    assert divergences(half, half) == [0.0]


@pytest.mark.parametrize("located", [True, False])
def test_distributions_are_those_of_the_next_token(load_tiny, located):
    loaded = load_tiny("llama")
    location = locate(loaded.model, "3:mlp.down_proj")
    at = location if located else None
    before = first_distributions(loaded, PROMPTS, SETTINGS, at)
    for prompt, row_V in zip(PROMPTS, before, strict=True):
        with torch.inference_mode():
            logits_V = loaded.model(torch.tensor([encode_prompt(loaded.tokenizer, prompt)])).logits[0, -1]
        assert torch.allclose(row_V.float(), logits_V.log_softmax(-1), atol=1e-2)
    assert divergences(before, first_distributions(loaded, PROMPTS, SETTINGS, at)) == [0.0] * 3
    with preserved(loaded.model, location.parameters), torch.no_grad():
        loaded.model.get_parameter(location.parameters[0]).mul_(3)
        after = first_distributions(loaded, PROMPTS, SETTINGS, at)
    assert all(one > 0 for one in divergences(before, after))


def test_few_probes_are_drawn_of_many(monkeypatch):
    monkeypatch.setattr(module, "PROMPT_LIMIT", 5)
    edits = [EditRequest(str(n), "p", "t", locality=(Probe(f"q{n}", ""), Probe("q0", ""))) for n in range(40)]
    drawn = drawn_probes(edits, 0)
    assert len(set(drawn)) == 5
    assert drawn == drawn_probes(edits, 0) != drawn_probes(edits, 1)
    assert drawn_probes(edits[:3], 0) == ["q0", "q1", "q2"]
