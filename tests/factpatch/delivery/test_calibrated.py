"""GPTQ and AWQ, whose values are chosen by texts: base and edited model are quantized each anew, by the same texts."""

import shutil
import sys
from dataclasses import replace

import pytest
import torch

from factpatch.delivery import formats
from factpatch.delivery.calibrated import calibrated_values, calibration_rows, group_size
from factpatch.delivery.gptq import rounded_columns
from factpatch.errors import InputError
from factpatch.models.linear import is_projection_weight, is_transposed, owner_of
from factpatch.models.loading import load_model, tensor_digests
from factpatch.models.locations import decoder_blocks
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


def test_gptq_makes_up_for_what_rounding_a_column_lost():
    """7.5 is cut to 7 of -8 to 7; the half that is lost comes back through the other column, which reads alike:
    2.4 + 0.5 / 2.02, which is rounded to 3."""
    moment = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    assert rounded_columns(torch.tensor([[7.5, 2.4]]), moment, -1).tolist() == [[7.0, 3.0]]
    assert rounded_columns(torch.tensor([[7.5, 2.4]]), 2 * torch.eye(2), -1).tolist() == [[7.0, 2.0]]
    assert rounded_columns(torch.zeros(1, 2), torch.zeros(2, 2), -1).tolist() == [[0.0, 0.0]]


def test_gptq_of_many_columns_is_the_papers_with_those_first_that_are_used_most():
    """By the paper's equations 2 and 3, which take the inverse anew after each column."""
    draw = torch.Generator().manual_seed(0)
    read = torch.randn(600, 192, generator=draw) @ torch.randn(192, 192, generator=draw)
    weight, moment = torch.randn(8, 192, generator=draw), read.T @ read
    scale = (weight.unflatten(1, (-1, 64)).abs().amax(-1) / 7.5).bfloat16().double().repeat_interleave(64, 1)
    left, wanted = weight.double(), torch.zeros(8, 192, dtype=torch.double)
    inverse = torch.linalg.inv(moment.double() + 0.01 * moment.diagonal().mean() * torch.eye(192))
    for at in moment.diagonal().argsort(descending=True).tolist():
        wanted[:, at] = (left[:, at] / scale[:, at]).round().clamp(-8, 7) * scale[:, at]
        left = left - torch.outer((left[:, at] - wanted[:, at]) / inverse[at, at], inverse[at])
        inverse = inverse - torch.outer(inverse[:, at], inverse[at]) / inverse[at, at]
    made = rounded_columns(weight, moment, 64)
    assert torch.isclose(made.double(), wanted, atol=1e-4).double().mean() > 0.99


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_gptq_quantizes_the_blocks_of_a_bf16_checkpoint_one_after_the_other(tiny_model, kind):
    loaded = load_model(ModelSettings(path=str(tiny_model(kind))))
    rows, before = calibration_rows(loaded, 0), tensor_digests(loaded.model)
    made = calibrated_values(loaded, "gptq", rows)
    assert tensor_digests(loaded.model) == before
    parameters = dict(loaded.model.named_parameters())
    assert made.keys() == parameters.keys()
    blocks, _ = decoder_blocks(loaded.model)
    for name, value in parameters.items():
        if name.startswith(blocks) and is_projection_weight(loaded.model, name):
            turned = made[name].T if is_transposed(owner_of(loaded.model, name)) else made[name]
            groups = turned.unflatten(-1, (-1, group_size(loaded))).flatten(0, 1)
            assert max(len(set(one.tolist())) for one in groups) <= 16
        else:
            assert torch.equal(made[name], value.bfloat16().float())


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
