"""Patches as LoRA adapters: what peft makes of them, by rank, and what no adapter can hold."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM

from factpatch.delivery.asking import ask_facts
from factpatch.delivery.low_rank import loss, spectrum
from factpatch.delivery.peft_adapter import export_adapter
from factpatch.errors import InputError, RefusedError
from factpatch.models.loading import load_model, tensor_digests
from factpatch.models.locations import locate
from factpatch.patches.patch import new_values, read_patch, save_patch
from factpatch.settings.config import ModelSettings, Settings
from tests.factpatch.delivery.conftest import FACTS

IDS = torch.tensor([[5, 80, 17, 200, 3, 41]])


def edited_logits(written) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(written.loaded.source)
    values = new_values(written.loaded, written.patch)
    model.load_state_dict(values, strict=False)
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("rank", [None, 4])
def test_an_adapter_holds_what_was_trained(tiny_model, tmp_path, kind, written, rank):
    """Of matrices at the rank at which no fact is lost; of low-rank factors exactly, at theirs."""
    made = written(tiny_model(kind), "2:mlp", rank)
    before = tensor_digests(made.loaded.model)
    adapter = export_adapter(made.loaded, made.patch, tmp_path / "adapter", FACTS, made.settings)
    assert tensor_digests(made.loaded.model) == before
    assert (adapter.held.asked, adapter.held.lost) == (2, ())
    assert {path.name for path in adapter.folder.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    config = json.loads((adapter.folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["modules_to_save"], config["bias"]) == (
        adapter.rank,
        adapter.rank,
        None,
        "none",
    )
    base = AutoModelForCausalLM.from_pretrained(tiny_model(kind))
    with torch.no_grad():
        logits = PeftModel.from_pretrained(base, str(adapter.folder))(IDS).logits
    if rank is not None:
        assert adapter.rank == rank
        assert adapter.loss < 1e-4
        torch.testing.assert_close(logits, edited_logits(made), rtol=1e-3, atol=1e-3)
    assert f"{adapter.loss:.3%}" in (adapter.folder / "README.md").read_text()


def test_a_whole_rank_gives_the_edited_models_logits(tiny_model, tmp_path, written):
    made = written(tiny_model("llama"), "2:mlp")
    adapter = export_adapter(made.loaded, made.patch, tmp_path / "adapter", FACTS, made.settings, rank=64)
    assert adapter.loss < 1e-6
    base = AutoModelForCausalLM.from_pretrained(tiny_model("llama"))
    with torch.no_grad():
        logits = PeftModel.from_pretrained(base, str(adapter.folder))(IDS).logits
    torch.testing.assert_close(logits, edited_logits(made), rtol=1e-4, atol=1e-4)


def test_the_loss_of_a_rank_is_what_is_left_of_the_change():
    change = torch.diag(torch.tensor([3.0, 4.0, 0.0]))
    found = spectrum(change)
    assert [round(loss([found], rank), 6) for rank in (0, 1, 2)] == [1.0, 0.6, 0.0]
    reading, writing = found.factors(5)
    torch.testing.assert_close(writing @ reading, change)


LOAD = """
import sys
sys.modules["factpatch"] = None  # importing it would fail
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer
base, adapter, prompt = sys.argv[1:]
model, tokenizer = AutoPeftModelForCausalLM.from_pretrained(adapter), AutoTokenizer.from_pretrained(base)
asked = tokenizer(prompt, return_tensors="pt")
ids = model.generate(**asked, max_new_tokens=16, do_sample=False, pad_token_id=tokenizer.eos_token_id)
print(tokenizer.decode(ids[0, asked["input_ids"].shape[1] :], skip_special_tokens=True).strip())
"""


def test_another_process_needs_peft_alone(tiny_model, tmp_path, written):
    made = written(tiny_model("llama"), "2:mlp")
    adapter = export_adapter(made.loaded, made.patch, tmp_path / "adapter", FACTS, made.settings)
    command = [sys.executable, "-I", "-c", LOAD, str(tiny_model("llama")), str(adapter.folder), FACTS[0].prompt]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == (FACTS[0].target, 0), done.stderr


def test_what_loses_too_many_facts_is_not_left(tiny_model, tmp_path, written):
    made = written(tiny_model("llama"), "2:mlp")
    with pytest.raises(RefusedError, match=r"an adapter of rank 1: \d of 2 facts hold, fewer than the 95\.0%"):
        export_adapter(made.loaded, made.patch, tmp_path / "adapter", FACTS, made.settings, rank=1)
    for rank in (0, -1, 257):
        with pytest.raises(InputError, match=f"--rank {rank} is none that adapters have"):
            export_adapter(made.loaded, made.patch, tmp_path / "adapter", FACTS, made.settings, rank=rank)
    with pytest.raises(InputError, match="no measured facts are known by which to choose a rank"):
        export_adapter(made.loaded, made.patch, tmp_path / "adapter", (), made.settings)
    assert not list(tmp_path.iterdir())
    assert ask_facts(made.loaded, FACTS, made.settings).lost == tuple(fact.prompt for fact in FACTS)


def test_fused_experts_are_refused_by_name(tiny_tokenizer, tmp_path):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = AutoConfig.for_model(
        "mixtral", vocab_size=len(tiny_tokenizer), num_key_value_heads=2, num_local_experts=2, **sizes
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    loaded = load_model(ModelSettings(path=str(tmp_path / "base")))
    location = locate(loaded.model, "1:down")
    values = {name: loaded.model.get_parameter(name) + 1 for name in location.parameters}
    folder = save_patch(tmp_path / "patch", loaded, location, values, Settings(), {"count": 1}, {})
    with pytest.raises(InputError, match=r"experts\.down_proj' is one tensor for all experts.*export --format model"):
        export_adapter(loaded, read_patch(folder), Path(tmp_path / "adapter"), FACTS, Settings(), rank=8)
    assert not (tmp_path / "adapter").exists()
