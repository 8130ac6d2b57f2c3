"""An edited model as it answers in the forms in which it is served, and which of them a release goes out in."""

from dataclasses import replace

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Params4bit
from gguf import GGMLQuantizationType
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from factpatch.delivery.formats import measure_formats, serving_values
from factpatch.delivery.quantizing import rounded
from factpatch.edits.request import Probe
from factpatch.evaluation.before_after import evaluate
from factpatch.evaluation.intervals import share
from factpatch.files import write_json
from factpatch.models.loading import tensor_digests
from factpatch.release.record import forms_below, judge_serving
from factpatch.settings.config import GateSettings, ServingSettings, Settings
from tests.factpatch.delivery.conftest import FACTS

EDITS = tuple(
    replace(fact, paraphrases=(f"Well, {fact.prompt}",), locality=(Probe("The capital of Japan is", "Tokyo"),))
    for fact in FACTS
)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_each_form_is_measured_and_the_model_left_as_found(tiny_model, written, kind):
    made = written(tiny_model(kind), "2:mlp")
    before = tensor_digests(made.loaded.model)
    gates = GateSettings(canaries=None)
    settings = replace(made.settings, serving=ServingSettings(("bf16", "q8_0", "q4_k_m", "peft")), gates=gates)
    measured = evaluate(made.loaded, EDITS, settings, made.patch)
    forms = measure_formats(made.loaded, EDITS, settings, made.patch, measured)
    assert tensor_digests(made.loaded.model) == before
    assert list(forms) == ["bf16", "q8_0", "q4_k_m", "peft"]
    assert {form["reliability"]["n"] for form in forms.values()} == {2}
    assert {form["locality_content"]["n"] for form in forms.values()} == {2}
    assert forms["peft"]["reliability"]["value"] == measured["reliability"]["value"] == 1.0
    assert 0 < forms["peft"]["rank"] <= 32


def test_a_matrix_becomes_what_the_file_gives_back(tiny_model, written):
    """By the file's rows, which are columns of GPT-2's matrices; some layers have more bits, as in llama.cpp."""
    made = written(tiny_model("gpt2"), "2:mlp")
    name = "transformer.h.2.mlp.c_proj.weight"
    value = made.loaded.model.get_parameter(name)
    by_rows = torch.from_numpy(rounded(value.T.numpy(), GGMLQuantizationType.Q8_0, name)).T
    assert torch.equal(serving_values(made.loaded, "q8_0")(name, value), by_rows)
    mixed = serving_values(made.loaded, "q4_k_m")(name, value)  # Q6_K, for whose blocks rows are too short
    assert torch.equal(mixed, by_rows)
    assert not torch.equal(serving_values(made.loaded, "q4_k_m")(name.replace(".2.", ".1."), value), by_rows)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_nf4_is_what_transformers_loads_with_bitsandbytes(tiny_model, written, kind):
    made = written(tiny_model(kind), "2:mlp")
    wanted = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    real = AutoModelForCausalLM.from_pretrained(tiny_model(kind), dtype=torch.float32, quantization_config=wanted)
    served, rounded_names = serving_values(made.loaded, "nf4"), set()
    for name, value in made.loaded.model.named_parameters():
        found = real.get_parameter(name)
        if isinstance(found, Params4bit):
            rounded_names.add(name)
            back = dequantize_4bit(found.data, found.quant_state)
            assert torch.equal(served(name, value), back.T if kind == "gpt2" else back)
            assert not torch.equal(value, served(name, value))
        else:
            assert torch.equal(served(name, value), value)
    assert len(rounded_names) == made.loaded.model.config.num_hidden_layers * (7 if kind == "llama" else 4)


def test_a_form_below_the_floors_is_not_released(tmp_path):
    good, bad = share([True] * 20, ""), share([True] * 10 + [False] * 10, "")
    forms = {
        "bf16": {"reliability": good, "generalization": good, "locality_content": good, "locality": good},
        "q4_0": {"reliability": bad, "generalization": good, "locality_content": good, "locality": good},
    }
    evaluated = {"protocol": "default", "formats": forms}
    judged = judge_serving(evaluated, GateSettings())
    assert {name: form["released"] for name, form in judged.items()} == {"bf16": True, "q4_0": False}
    assert [gate["verdict"] for gate in judged["q4_0"]["gates"]] == ["failed", "passed", "passed"]
    write_json(tmp_path / "evaluate.json", evaluated)
    assert forms_below(tmp_path, Settings()) == ["q4_0"]
    assert judge_serving({"protocol": "default"}, GateSettings()) == {}
