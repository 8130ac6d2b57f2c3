"""Checkpoints as people have them: apply changes the bytes of the located tensors alone, undo gives the files back.

Bytes are compared by `sha256sum` and by the safetensors library, not by factpatch.
"""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from factpatch.ask import ask
from factpatch.errors import InputError, RefusedError
from factpatch.models.loading import load_model
from factpatch.models.locations import locate
from factpatch.patches.certificate import certify, check_certificate
from factpatch.patches.export import export_patch, export_undo
from factpatch.patches.patch import apply_patch, read_patch, save_patch
from factpatch.settings.config import ModelSettings, Settings

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
EXPERTS = SIZES | {"num_experts_per_tok": 2, "num_local_experts": 4}
QWEN_EXPERTS = SIZES | {"num_experts_per_tok": 2, "num_experts": 4, "moe_intermediate_size": 24, "head_dim": 8}
MULTIMODAL = {
    "text_config": SIZES | {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8},
    "vision_config": {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 4,
    },
    "mm_tokens_per_image": 4,
}
BF16, F16, F32, F64 = torch.bfloat16, torch.float16, torch.float32, torch.float64


@dataclass(frozen=True)
class Case:
    """How a checkpoint is made: its class and sizes, what becomes of its tensors, and how it is stored and loaded."""

    kind: str = "llama"
    sizes: dict = field(default_factory=lambda: SIZES)
    change: object = None
    types: object = F32
    shards: int = 1
    config: dict = field(default_factory=dict)
    files: tuple = ()
    dtype: str = "float32"
    place: str = "1:down"


def norms_in_float32(name, value):
    return F32 if "norm" in name else BF16


def without_prefix(tensors):
    return {name.removeprefix("transformer."): value for name, value in tensors.items()}


def with_masks(tensors):
    return tensors | {f"transformer.h.{n}.attn.bias": torch.ones(1, 1, 64, 64, dtype=torch.bool) for n in range(2)}


def with_more(tensors):
    return tensors | {"mtp.layers.0.eh_proj.weight": torch.randn(4, 4), "v_head.summary.bias": torch.zeros(1)}


def as_published(tensors):
    """Names of Gemma 3 before transformers changed its own."""
    renamed = {name.replace("model.language_model.", "language_model.model."): tensors[name] for name in tensors}
    return {name.replace("model.vision_tower.", "vision_tower."): value for name, value in renamed.items()}


CASES = {
    "float32": Case(),
    "bfloat16": Case(types=BF16),
    "float16": Case(types=F16),
    "float64": Case(types=F64),
    "float32 loaded as bfloat16": Case(dtype="bfloat16"),
    "float16 loaded as bfloat16": Case(types=F16, dtype="bfloat16"),
    "bfloat16 loaded as float16": Case(types=BF16, dtype="float16"),
    "bfloat16 with norms in float32": Case(types=norms_in_float32, place="1:block"),
    "types and shards mixed": Case(types=norms_in_float32, shards=3, place="0:mlp"),
    "every second tensor in another type": Case(types=lambda name, value: BF16 if len(name) % 2 else F32),
    "bfloat16 called float32": Case(types=BF16, config={"dtype": "float32"}),
    "float32 called bfloat16": Case(config={"dtype": "bfloat16"}),
    "type not told": Case(types=BF16, config={"dtype": None, "torch_dtype": None}),
    "tied": Case(sizes=SIZES | {"tie_word_embeddings": True}, types=BF16),
    "tied and stored twice": Case(
        sizes=SIZES | {"tie_word_embeddings": True},
        change=lambda held: held | {"lm_head.weight": held["model.embed_tokens.weight"].clone()},
    ),
    "tied and stored as the head": Case(
        sizes=SIZES | {"tie_word_embeddings": True},
        change=lambda held: {name.replace("model.embed_tokens", "lm_head"): value for name, value in held.items()},
    ),
    "more tensors": Case(change=with_more, types=BF16),
    "more tensors in shards": Case(change=with_more, shards=2),
    "a processor beside": Case(files=("preprocessor_config.json", "chat/a b.jinja", "README.md", "notes.bin")),
    "gpt2 without its prefix": Case("gpt2", GPT2, change=without_prefix, types=F16),
    "gpt2 with masks": Case("gpt2", GPT2, change=with_masks),
    "experts one by one": Case("mixtral", EXPERTS, types=BF16, place="1:mlp"),
    "experts in shards and types": Case(
        "qwen3_moe", QWEN_EXPERTS, types=lambda name, value: F32 if "gate.weight" in name else BF16, shards=4
    ),
    "experts of two types": Case("mixtral", EXPERTS, types=lambda name, value: F32 if ".1.w2" in name else BF16),
    "multimodal under older names": Case("gemma3", MULTIMODAL, change=as_published, types=BF16),
    "fused projections": Case("phi3", SIZES, types=BF16, place="0:gate_up"),
}


def make(case, tokenizer, folder):
    """A seeded random model, stored as the case says."""
    ids = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": 1}
    words = {"vocab_size": len(tokenizer)}
    sizes = case.sizes | ({"text_config": case.sizes["text_config"] | words} if "text_config" in case.sizes else words)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(case.kind, **ids, **sizes))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tensors = load_file(folder / WEIGHTS)
    tensors = case.change(tensors) if case.change else tensors
    kind_of = case.types if callable(case.types) else lambda name, value: case.types
    tensors = {n: v.to(kind_of(n, v)) if v.dtype == F32 else v for n, v in tensors.items()}
    write(folder, tensors, case.shards)
    config = json.loads((folder / "config.json").read_text()) | case.config
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None or k != "dtype"}))
    for name in case.files:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"of {name}\n")
    return folder


def write(folder, tensors, shards):
    """The tensors in one file, or dealt to so many."""
    if shards == 1:
        save_file(tensors, folder / WEIGHTS, {"format": "pt"})
        return
    (folder / WEIGHTS).unlink()
    files = {name: f"model-{1 + at % shards:05}-of-{shards:05}.safetensors" for at, name in enumerate(sorted(tensors))}
    for file in set(files.values()):
        save_file({n: v for n, v in tensors.items() if files[n] == file}, folder / file, {"format": "pt"})
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": files}))


def sha256sums(folder):
    """Of every file, by the program of that name."""
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    lines = subprocess.run(["sha256sum", *files], cwd=folder, capture_output=True, text=True, check=True).stdout
    return {line[66:]: line[:64] for line in lines.splitlines()}


def contents(folder):
    """The type, shape and bytes of every tensor by the safetensors library, and the bytes before the first of them."""
    tensors, heads = {}, {}
    for path in sorted(folder.glob("*.safetensors")):
        content = path.read_bytes()
        heads[path.name] = content[: 8 + int.from_bytes(content[:8], "little")]
        with safe_open(path, "pt") as file:
            for name in list(file.keys()):
                value = file.get_tensor(name)
                tensors[name] = str(value.dtype), value.shape, value.view(-1).view(torch.uint8).numpy().tobytes()
    return tensors, heads


def new_values(loaded, location):
    generator = torch.Generator().manual_seed(1)
    values = {}
    for name in location.parameters:
        old = loaded.model.get_parameter(name)
        values[name] = old.float() + 0.1 * torch.randn(old.shape, generator=generator)
    return loaded.stored.rounded(values)


def patch_of(loaded, place, folder):
    location = locate(loaded.model, place)
    loaded.stored.refuse_unmapped(location.parameters)
    values = new_values(loaded, location)
    patch = save_patch(folder, loaded, location, values, Settings(), {"digest": "e", "count": 1}, {})
    certificate = certify(loaded, patch, [])
    assert check_certificate(patch) == []
    return patch, values, certificate


@pytest.mark.parametrize("name", CASES)
def test_apply_changes_the_located_bytes_alone_and_undo_gives_the_files_back(name, tiny_tokenizer, tmp_path):
    case = CASES[name]
    base = make(case, tiny_tokenizer, tmp_path / "base")
    settings = ModelSettings(path=str(base), dtype=case.dtype)
    loaded = load_model(settings)
    assert loaded.stored.differing() == []
    patch, values, certificate = patch_of(loaded, case.place, tmp_path / "patch")

    edited = export_patch(settings, patch, tmp_path / "edited")
    (before, heads), (after, new_heads) = contents(base), contents(edited)
    changed = {tensor for tensor in before if before[tensor] != after[tensor]}
    assert heads == new_heads
    assert changed == set(read_patch(patch).new) == set(certificate["changed"])
    assert all(before[tensor][:2] == after[tensor][:2] for tensor in before)
    sums, new_sums = sha256sums(base), sha256sums(edited)
    assert {file for file in sums | new_sums if sums.get(file) != new_sums.get(file)} <= set(heads)
    assert set(case.files) <= set(new_sums)

    of_edited = replace(settings, path=str(edited))
    again = load_model(of_edited)
    for parameter, value in values.items():
        assert torch.equal(again.model.get_parameter(parameter), value)
    assert ask(Settings(model=settings), "Where?", str(patch)) == ask(Settings(model=of_edited), "Where?")
    export_undo(of_edited, patch, tmp_path / "restored")
    assert sha256sums(tmp_path / "restored") == sums


def test_the_types_of_the_cases_are_in_the_files(tiny_tokenizer, tmp_path):
    """Else the cases would show nothing."""
    mixed = make(CASES["types and shards mixed"], tiny_tokenizer, tmp_path / "mixed")
    tensors, heads = contents(mixed)
    assert {kind for kind, _, _ in tensors.values()} == {"torch.float32", "torch.bfloat16"}
    assert len(heads) == 3
    experts = contents(make(CASES["experts one by one"], tiny_tokenizer, tmp_path / "experts"))[0]
    assert any(".experts.3." in name for name in experts)
    assert "wte.weight" in contents(make(CASES["gpt2 without its prefix"], tiny_tokenizer, tmp_path / "gpt2"))[0]
    assert any(
        name.startswith("language_model.model.")
        for name in contents(make(CASES["multimodal under older names"], tiny_tokenizer, tmp_path / "gemma"))[0]
    )


def test_the_same_weights_in_other_forms_are_left_out_and_said(tiny_model, tmp_path, caplog):
    base = shutil.copytree(tiny_model("llama"), tmp_path / "base")
    for name in ("pytorch_model.bin", "model-q4.gguf", "onnx/model.onnx", ".git/config"):
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text("weights")
    shutil.copy(base / WEIGHTS, base / "model.fp32.safetensors")
    save_file({"value_head.weight": torch.ones(2)}, base / "value_head.safetensors")
    settings = ModelSettings(path=str(base))
    patch, _, _ = patch_of(load_model(settings), "1:down", tmp_path / "patch")
    edited = export_patch(settings, patch, tmp_path / "edited")
    assert set(sha256sums(tiny_model("llama"))) | {"value_head.safetensors"} == set(sha256sums(edited))
    assert caplog.messages[-1].endswith(
        "in other forms: model-q4.gguf, model.fp32.safetensors, onnx/model.onnx, pytorch_model.bin"
    )


def test_a_hub_models_cached_files_are_copied(tiny_model, tmp_path, monkeypatch):
    """From links to blobs, as the hub's cache keeps them."""
    blobs, snapshot = tmp_path / "models--owner--llama/blobs", tmp_path / "models--owner--llama/snapshots/abc"
    shutil.copytree(tiny_model("llama"), blobs)
    snapshot.mkdir(parents=True)
    (tmp_path / "models--owner--llama/refs").mkdir()
    (tmp_path / "models--owner--llama/refs/main").write_text("abc")
    for path in blobs.iterdir():
        os.symlink(path, snapshot / path.name)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    settings = ModelSettings(path="owner/llama")
    patch, values, _ = patch_of(load_model(settings), "1:down", tmp_path / "patch")
    edited = export_patch(settings, patch, tmp_path / "edited")
    assert not any(path.is_symlink() for path in edited.iterdir())
    assert set(sha256sums(edited)) == {path.name for path in blobs.iterdir()}
    assert all(torch.equal(load_file(edited / WEIGHTS)[name], value) for name, value in values.items())
    with pytest.raises(InputError, match="was not downloaded before"):
        load_model(ModelSettings(path="owner/another"))


@pytest.fixture
def patched(tiny_model, tmp_path):
    """A folder of its own, and a patch of it."""
    base = shutil.copytree(tiny_model("llama"), tmp_path / "base")
    return base, patch_of(load_model(ModelSettings(path=str(base))), "1:down", tmp_path / "patch")[0]


def test_a_tensor_that_is_not_there_is_named(patched, tmp_path):
    base, patch = patched
    tensors = load_file(base / WEIGHTS)
    del tensors["model.layers.3.mlp.up_proj.weight"]
    save_file(tensors, base / WEIGHTS, {"format": "pt"})
    with pytest.raises(InputError, match=r"patch: its files lack model\.layers\.3\.mlp\.up_proj\.weight"):
        export_patch(ModelSettings(path=str(base)), patch, tmp_path / "edited")


@pytest.mark.parametrize("name", ["model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.down_proj.weight"])
def test_another_tensor_in_the_files_is_refused_by_name_and_leaves_nothing(patched, tmp_path, name):
    base, patch = patched
    tensors = load_file(base / WEIGHTS)
    tensors[name][0, 0] += 1
    save_file(tensors, base / WEIGHTS, {"format": "pt"})
    settings = ModelSettings(path=str(base))
    for use in (
        lambda: export_patch(settings, patch, tmp_path / "edited"),
        lambda: apply_patch(load_model(settings), patch),
    ):
        with pytest.raises(InputError, match=f"this is not the base model of the patch: {name} differ"):
            use()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "patch"]


def test_an_output_inside_the_model_or_without_room_is_refused(patched, tmp_path, monkeypatch):
    base, patch = patched
    with pytest.raises(InputError, match="would lie inside the model folder"):
        export_patch(ModelSettings(path=str(base)), patch, base / "edited")
    full = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(InputError, match="make room, or name another --output"):
        export_patch(ModelSettings(path=str(base)), patch, tmp_path / "edited")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "patch"]


def test_an_older_patch_is_refused_in_a_line(patched):
    patch = patched[1]
    manifest = json.loads((patch / "manifest.json").read_text())
    (patch / "manifest.json").write_text(json.dumps(manifest | {"schema": 1}))
    with pytest.raises(InputError, match=r"schema 1 \(it describes tensors in memory instead of files\).*edit again"):
        read_patch(patch)


def test_values_that_the_files_cannot_hold_leave_no_patch(tiny_tokenizer, tmp_path):
    loaded = load_model(ModelSettings(path=str(make(CASES["bfloat16"], tiny_tokenizer, tmp_path / "base"))))
    location = locate(loaded.model, "1:down")
    values = {name: torch.full_like(loaded.model.get_parameter(name), 0.1) for name in location.parameters}
    with pytest.raises(RefusedError, match=r"cannot hold the new values of model\.layers\.1"):
        save_patch(tmp_path / "patch", loaded, location, values, Settings(), {}, {})
    assert not Path(tmp_path / "patch").exists()
