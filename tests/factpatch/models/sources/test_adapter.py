"""PEFT adapters as models: merged with their base, against peft's own forward pass; and those that do not fit."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from factpatch.errors import InputError
from factpatch.models.checkpoints.tensors import main_type
from factpatch.models.loading import load_model
from factpatch.models.sources.resolve import make_folder
from factpatch.settings.config import ModelSettings
from flows.__main__ import main

IDS = torch.tensor([[5, 80, 17, 200, 3, 41]])


def adapter(base: Path, folder: Path, config) -> torch.Tensor:
    """Save an adapter of random changes to the base; its own logits."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).eval()
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.data.normal_(0, 0.3)
    adapted.save_pretrained(folder)
    with torch.no_grad():
        return adapted(IDS).logits


def lora(**options) -> LoraConfig:
    return LoraConfig(**{"r": 4, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"} | options)


@pytest.fixture
def base(tiny_model, tmp_path) -> Path:
    return shutil.copytree(tiny_model("llama"), tmp_path / "base")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_dora": True, "use_rslora": True},
        {"target_modules": "all-linear", "modules_to_save": ["embed_tokens"]},
        {"bias": "all", "layers_to_transform": [1, 2]},
    ],
)
def test_a_merged_adapter_answers_as_peft_does(base, tmp_path, options):
    expected = adapter(base, tmp_path / "adapter", lora(**options))
    made = make_folder(tmp_path / "adapter", tmp_path / "made", load_model)
    loaded = load_model(ModelSettings(path=str(tmp_path / "made")))
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(IDS).logits, expected, rtol=1e-3, atol=1e-3)
        before = AutoModelForCausalLM.from_pretrained(base)(IDS).logits
    assert (before - expected).abs().max() > 0.1
    assert made.difference < 1e-3
    assert not (tmp_path / "made" / "adapter_config.json").exists()


def test_the_base_is_found_from_the_adapter_and_its_type_is_kept(base, tmp_path):
    """By a path from the adapter's folder; the merged weights are of the base's stored type."""
    model = AutoModelForCausalLM.from_pretrained(base).to(torch.bfloat16)
    model.save_pretrained(base)
    adapter(base, tmp_path / "adapter", lora())
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "../base"}))
    assert make_folder(tmp_path / "adapter", tmp_path / "made", load_model).dtype == torch.bfloat16
    assert main_type(load_model(ModelSettings(path=str(tmp_path / "made"))).stored.checkpoint) == torch.bfloat16


def test_the_adapters_own_tokenizer_goes_with_it(base, tmp_path):
    adapter(base, tmp_path / "adapter", lora())
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = "{{ messages[0].content }}"
    tokenizer.save_pretrained(tmp_path / "adapter")
    make_folder(tmp_path / "adapter", tmp_path / "made", load_model)
    assert AutoTokenizer.from_pretrained(tmp_path / "made").chat_template == tokenizer.chat_template
    tokenizer.add_tokens(["<one more>"])
    tokenizer.save_pretrained(tmp_path / "adapter")
    with pytest.raises(InputError, match=r"ids up to 384, and its base .* embeddings for 384"):
        make_folder(tmp_path / "adapter", tmp_path / "again", load_model)


def test_every_verb_takes_an_adapter_and_keeps_the_merged_folder(base, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    adapter(base, tmp_path / "adapter", lora())
    command = ["ask", "--model", "adapter", "The capital of France is"]
    assert main(command) == 0
    first = capsys.readouterr()
    assert "'adapter' is a PEFT adapter, merged with its base '" in first.err
    made = next(Path(".cache/models").glob("adapter-*"))
    times = {file.name: file.stat().st_mtime_ns for file in made.iterdir()}
    assert main(command) == 0
    assert capsys.readouterr().out == first.out
    assert {file.name: file.stat().st_mtime_ns for file in made.iterdir()} == times
    model = AutoModelForCausalLM.from_pretrained(base)
    model.model.norm.weight.data *= 2
    model.save_pretrained(base)
    assert main(command) == 0  # of another base another folder is made
    assert len(list(Path(".cache/models").glob("adapter-*"))) == 2


def _without_base(folder: Path) -> None:
    _configure(folder, base_model_name_or_path="./gone")


def _named_by_nothing(folder: Path) -> None:
    _configure(folder, base_model_name_or_path=None)


def _pickle_alone(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def _cut(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:500])


def _of_another_width(folder: Path) -> None:
    _change(folder, lambda tensors: {name: torch.cat([value, value], -1) for name, value in tensors.items()})


def _with_one_more(folder: Path) -> None:
    _change(folder, lambda tensors: tensors | {"base_model.model.model.layers.9.mlp.lora_A.weight": torch.ones(4, 32)})


def _with_one_less(folder: Path) -> None:
    _change(folder, lambda tensors: dict(list(tensors.items())[1:]))


def _of_modules_that_are_not_there(folder: Path) -> None:
    _configure(folder, target_modules=["c_attn"])


def _on_an_adapter(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "first")
    _configure(folder, base_model_name_or_path="../first")


def _not_json(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{")


def _configure(folder: Path, **changes) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _change(folder: Path, change) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({name: value.contiguous() for name, value in change(load_file(path)).items()}, path)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_without_base, "base model './gone' does not exist"),
        (_named_by_nothing, "has no base_model_name_or_path"),
        (_pickle_alone, "adapter_model.bin, a pickle, which is never read"),
        (_cut, "adapter_model.safetensors cannot be read"),
        (_of_another_width, "does not fit its base"),
        (_with_one_more, "has no place for base_model.model.model.layers.9.mlp.lora_A.weight"),
        (_with_one_less, "needs, and the adapter lacks, base_model.model.model.layers.0"),
        (_of_modules_that_are_not_there, "does not fit its base"),
        (_on_an_adapter, "is an adapter too"),
        (_not_json, "is not JSON"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_by_name(base, tmp_path, damage, told, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    adapter(base, tmp_path / "adapter", lora())
    damage(tmp_path / "adapter")
    assert main(["import", "adapter", "--output", "made"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ")
    assert told in line
    assert "adapter" in line
    assert not Path("made").exists()
    assert main(["ask", "--model", "adapter", "x"]) == 2
    assert not list(Path(".").glob(".cache/models/[!.]*"))


def test_adapters_of_other_kinds_are_refused(base, tmp_path):
    adapter(base, tmp_path / "adapter", IA3Config(target_modules=["k_proj"], feedforward_modules=[]))
    with pytest.raises(InputError, match="is of kind 'IA3'; only LoRA is merged"):
        make_folder(tmp_path / "adapter", tmp_path / "made", load_model)
    with pytest.raises(InputError, match="neither a GGUF file nor the folder of a PEFT adapter"):
        make_folder(base, tmp_path / "made", load_model)
