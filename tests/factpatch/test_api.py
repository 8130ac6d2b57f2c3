"""The public functions on models that the caller loaded: what they give, and that they leave everything as it was."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import factpatch

FACTS = [("The capital of France is", "Lyon"), ("Which language do people speak in Brazil?", "Dutch")]
SETTINGS = {
    "training": {
        "learning_rate": 1e-2,
        "epochs": 60,
        "preservation": {"neighbours": 0},
        "augmentation": {"wordings": 0},
    },
    "evaluation": {"make_probes": False, "max_new_tokens": 8},
    "gates.canaries": None,
}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def load(folder: Path, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype), AutoTokenizer.from_pretrained(folder)


def bits(model) -> dict[str, bytes]:
    tensors = model.state_dict()
    return {name: tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes() for name, tensor in tensors.items()}


def edited(pair, facts=FACTS, location="2:mlp"):
    return factpatch.edit(pair, facts, SETTINGS, location=location)


def test_importing_loads_no_torch_and_names_all_that_is_public():
    code = (
        "import sys, factpatch\n"
        "assert not {'torch', 'transformers'} & sys.modules.keys()\n"
        "assert set(factpatch.__all__) <= set(dir(factpatch))\n"
        "factpatch.InputError, factpatch.EditRequest\n"
        "assert not {'torch', 'transformers'} & sys.modules.keys()\n"
        "assert all(getattr(factpatch, name).__doc__ for name in factpatch.__all__)\n"
        "assert 'torch' in sys.modules\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (Path(root) / "factpatch" / "py.typed").exists()
    with pytest.raises(AttributeError, match="no attribute 'edits_of'"):
        factpatch.edits_of  # noqa: B018


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_loaded_model_is_left_as_it_was_and_changed_by_the_patch(tiny_model, dtype):
    model, tokenizer = load(tiny_model("llama"), dtype)
    model.train()
    weight = model.get_parameter("model.layers.2.mlp.down_proj.weight")
    weight.grad = torch.ones_like(weight)
    before = bits(model)
    result = edited((model, tokenizer))
    assert bits(model) == before
    assert model.training
    assert weight.requires_grad
    assert torch.equal(weight.grad, torch.ones_like(weight))
    assert result.scores["reliability"]["value"] == 1.0
    assert result.scores.before["reliability"]["value"] == 0.0
    result.patch.apply(model)
    after = bits(model)
    assert {name for name in after if after[name] != before[name]} == set(result.location.parameters)
    assert factpatch.evaluate((model, tokenizer), FACTS, settings=SETTINGS)["reliability"]["value"] == 1.0
    with pytest.raises(factpatch.InputError, match=r"not the base model .*model\.layers\.2\.mlp\.down_proj\.weight"):
        result.patch.apply(model)
    result.patch.undo(model)
    assert bits(model) == before
    with pytest.raises(factpatch.InputError, match=r"not the model that the patch made: model\.layers\.2"):
        result.patch.undo(model)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_model_that_was_changed_or_made_in_memory_is_edited_as_it_lies_there(tiny_model, tmp_path, kind):
    model, tokenizer = load(tiny_model(kind))
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1.01)
    before = bits(model)
    first = edited((model, tokenizer), FACTS[:1])
    first.patch.apply(model)
    second = edited((model, tokenizer), FACTS[1:], "1:mlp")  # on top of the first
    second.patch.apply(model)
    second.patch.undo(model)
    first.patch.undo(model)
    assert bits(model) == before
    with pytest.raises(factpatch.InputError, match="not the base model of the patch: "):
        second.patch.apply(model)  # without the first
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    scores = factpatch.evaluate(tmp_path, FACTS[:1], first.patch, SETTINGS)  # as saved it is the same model
    assert scores["reliability"]["value"] == 1.0


def test_a_saved_patch_serves_the_files_and_models_loaded_from_them(tiny_model, tmp_path):
    folder = tiny_model("llama")
    result = edited(load(folder), FACTS[:1])
    saved = result.patch.save(tmp_path / "patch")
    assert sorted(os.listdir(tmp_path / "patch")) == ["manifest.json", "patch.safetensors", "undo.safetensors"]
    patch = factpatch.load_patch(tmp_path / "patch")
    assert patch.manifest["files"] == saved.manifest["files"]
    assert patch.manifest["base"]["source"] == str(folder)
    scores = factpatch.evaluate(folder, FACTS[:1], tmp_path / "patch", SETTINGS)
    assert scores["reliability"] == result.scores["reliability"]
    other, _ = load(tiny_model("qwen2"))
    before = bits(other)
    with pytest.raises(factpatch.InputError, match="not the base model of the patch"):
        patch.apply(other)
    assert bits(other) == before


def test_a_folder_and_a_model_loaded_from_it_give_the_same_patch(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tiny_model("llama")
    by_folder, by_pair = edited(str(folder)), edited(load(folder))
    assert by_folder.patch.after == by_pair.patch.after
    assert by_folder.scores.report == by_pair.scores.report
    assert not os.listdir()


def test_results_say_what_they_are(tiny_model):
    result = edited(tiny_model("llama"), FACTS[:1])
    assert "reliability" in repr(result.scores)
    assert repr(result).startswith("EditResult at 2:mlp")
    assert "Patch(1 edits at 2:mlp" in repr(result.patch)
    assert set(result.scores) >= {"reliability", "generalization", "locality"}
    assert result.scores["generalization"]["value"] is None
    found = factpatch.localize(tiny_model("llama"), FACTS[:1], SETTINGS)
    assert repr(found).startswith(f"Localization({found.location.name}: ")
    again = factpatch.edit(tiny_model("llama"), FACTS[:1], SETTINGS, location=found.location, seed=3)
    assert (again.location, again.patch.manifest["config"]["training"]["seed"]) == (found.location, 3)


def test_what_is_no_model_is_refused_by_what_it_is(tiny_model):
    model, tokenizer = load(tiny_model("llama"))
    for given, message in (
        (model, "the model is a LlamaForCausalLM; give a folder"),
        ((torch.nn.Linear(2, 2), tokenizer), "a Linear is no transformers model"),
        (load(tiny_model("llama"), torch.float64), "this LlamaForCausalLM is in torch.float64; load it in"),
        ("no/such/folder", "does not exist"),
    ):
        with pytest.raises(factpatch.InputError, match=message):
            factpatch.edit(given, FACTS)
    with pytest.raises(factpatch.InputError, match="the patch is a dict; give a Patch"):
        factpatch.evaluate((model, tokenizer), FACTS, {})
    with pytest.raises(factpatch.InputError, match="location is 9; give a text"):
        factpatch.edit((model, tokenizer), FACTS, SETTINGS, location=9)
    with pytest.raises(factpatch.InputError, match="layer 9 does not exist"):
        factpatch.edit((model, tokenizer), FACTS, SETTINGS, location="9:mlp")
