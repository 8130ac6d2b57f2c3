"""GPTQ and AWQ, whose values are chosen by texts: base and edited model are quantized each anew, by the same texts."""

import shutil
import sys
from dataclasses import replace

import pytest
import torch

from factpatch.delivery import formats
from factpatch.delivery.calibrated import calibrated_values, calibration_rows, group_size
from factpatch.delivery.quantizer import gptq
from factpatch.errors import InputError
from factpatch.models.loading import load_model, tensor_digests
from factpatch.patches.patch import new_values
from factpatch.settings.config import ModelSettings, ServingSettings
from tests.factpatch.delivery.test_formats import EDITS


def test_base_and_edited_model_are_each_quantized_anew_by_the_same_texts(tiny_model, written, monkeypatch):
    made = written(tiny_model("llama"), "2:mlp")
    before = tensor_digests(made.loaded.model)
    name, written_there = next(iter(new_values(made.loaded, made.patch).items()))
    asked = []

    def quantized(loaded, form, rows):
        asked.append((form, loaded.model.get_parameter(name).detach().clone(), rows))
        return {own: value.detach().bfloat16() for own, value in loaded.model.named_parameters()}

    monkeypatch.setattr(formats, "calibrated_values", quantized)
    settings = replace(made.settings, serving=ServingSettings(("gptq",)))
    found = formats.measure_formats(made.loaded, EDITS, settings, made.patch, {})
    (form, base, rows), (_, edited, same) = asked
    assert form == "gptq"
    assert torch.equal(rows, same)
    assert torch.equal(base, made.loaded.model.get_parameter(name))
    assert torch.equal(edited, written_there)
    assert tensor_digests(made.loaded.model) == before
    assert found["gptq"]["reliability"]["value"] == 1.0
    assert found["gptq"]["locality"]["n"] == 2


def test_the_texts_are_the_models_own_and_the_same_for_a_seed(tiny_model):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    rows = calibration_rows(loaded, 0)
    assert rows.shape[1] == min(128, loaded.model.config.max_position_embeddings - 1)
    assert torch.equal(rows, calibration_rows(loaded, 0))
    assert not torch.equal(rows, calibration_rows(loaded, 1))
    assert loaded.tokenizer.eos_token_id == rows[0, 0]


def test_what_a_quantizer_cannot_do_is_told_in_a_line(tiny_model, monkeypatch):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(InputError, match="could not be quantized by awq: exit code 1; leave it out"):
        calibrated_values(loaded, "awq", torch.zeros(1, 4, dtype=torch.long))


def test_gptq_rounds_column_by_column_and_makes_up_for_it_as_in_the_paper(tiny_model):
    pytest.importorskip("neural_compressor", reason="of the extra gptq")
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    rows, read = calibration_rows(loaded, 0), []
    made = gptq(str(tiny_model("llama")), rows, group_size(loaded))
    parameters = dict(loaded.model.named_parameters())
    assert made.keys() == parameters.keys()
    kept = {name for name in made if torch.equal(made[name], parameters[name])}
    assert kept == {name for name in made if not name.endswith("proj.weight")}
    first = loaded.model.get_submodule("model.layers.0.self_attn.q_proj")
    first.register_forward_pre_hook(lambda _, given: read.append(given[0].flatten(0, -2)))
    with torch.no_grad():
        loaded.model(rows)
    served, wanted = made["model.layers.0.self_attn.q_proj.weight"], _by_the_paper(first.weight, read[0])
    assert torch.isclose(served.double(), wanted, rtol=1e-2, atol=1e-5).double().mean() > 0.99


def _by_the_paper(weight: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
    """Optimal brain quantization in the order of columns (arXiv 2210.17323, equations 2 and 3), one scale a row."""
    left, hessian = weight.detach().double(), (read.T @ read).double()
    inverse = torch.linalg.inv(hessian + 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian)))
    scale, columns = left.abs().amax(1) / 7.5, []
    for at in range(len(hessian)):
        columns.append((left[:, at] / scale).round().clamp(-8, 7) * scale)
        left = left - torch.outer((left[:, at] - columns[-1]) / inverse[at, at], inverse[at])
        inverse = inverse - torch.outer(inverse[:, at], inverse[at]) / inverse[at, at]
    return torch.stack(columns, 1)


def test_awq_gives_every_parameter_and_changes_the_norms(tiny_model):
    pytest.importorskip("auto_round", reason="of the extra awq")
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    rows = calibration_rows(loaded, 0)
    made = calibrated_values(loaded, "awq", rows)
    parameters = dict(loaded.model.named_parameters())
    assert made.keys() == parameters.keys()
    changed = {name for name, value in parameters.items() if not torch.equal(made[name], value.bfloat16())}
    assert any("layernorm" in name for name in changed)
    assert any("mlp.down_proj" in name for name in changed)
