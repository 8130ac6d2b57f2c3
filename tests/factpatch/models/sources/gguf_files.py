"""GGUF files of tiny models, written with gguf's own writer as llama.cpp's converter lays them out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

F32, F16, BF16, Q8_0, Q4_0 = (getattr(gguf.GGMLQuantizationType, name) for name in "F32 F16 BF16 Q8_0 Q4_0".split())
ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3_text": "gemma3"}
CHAT = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"


def random_model(kind: str, size: int, **changes: Any) -> PreTrainedModel:
    """Two layers of width 64, with biases and norms that are not what a model starts with."""
    sizes = {
        "vocab_size": size,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
    }
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes | changes))
        for parameter in model.parameters():
            parameter.data.normal_(0.5 if parameter.ndim == 1 else 0, 0.3)
    return model.eval()


def write_gguf(
    path: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast | None,
    kind: gguf.GGMLQuantizationType = F32,
    metadata: dict[str, Any] | None = None,
    extra: dict[str, np.ndarray] | None = None,
) -> Path:
    """Write the model; `metadata` holds further keys (None leaves one out), `extra` further tensors."""
    config, name = model.config, ARCHITECTURES[model.config.model_type]
    architecture = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == name)
    writer = gguf.GGUFWriter(path, name)
    keys: dict[str, Any] = {
        f"{name}.context_length": config.max_position_embeddings,
        f"{name}.block_count": config.num_hidden_layers,
        f"{name}.embedding_length": config.hidden_size,
        f"{name}.feed_forward_length": config.intermediate_size,
        f"{name}.attention.head_count": config.num_attention_heads,
        f"{name}.attention.head_count_kv": config.num_key_value_heads,
        f"{name}.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        f"{name}.rope.dimension_count": config.hidden_size // config.num_attention_heads,
        f"{name}.attention.key_length": config.hidden_size // config.num_attention_heads,
        **({} if tokenizer is None else vocabulary(tokenizer)),
        **(metadata or {}),
    }
    for key, value in keys.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif value is not None:
            writer.add_array(key, value)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    for own, tensor in model.named_parameters():
        array = as_stored(own, tensor.detach().numpy(), config)
        stored = F32 if array.ndim == 1 else kind
        found = names.get_name(own, try_suffixes=(".weight", ".bias"))
        writer.add_tensor(found, gguf.quants.quantize(array, stored), raw_dtype=stored)
    for own, array in (extra or {}).items():
        writer.add_tensor(own, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def vocabulary(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """The keys that describe a byte-level tokenizer."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in special else 1 for token in tokens],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in model["merges"]],
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
    }


def sentencepieces() -> dict[str, Any]:
    """The keys that describe a small tokenizer of Gemma's kind: bytes, letters, and a few words by merging."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    letters = ["▁", *map(chr, range(33, 127)), "th", "the", "▁the", "  "]
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [-float(place) for place in range(len(tokens))],
        "tokenizer.ggml.token_type": [3, 3, 3, 2, *[6] * 256, *[1] * len(letters)],
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_space_prefix": False,
    }


def as_stored(name: str, array: np.ndarray, config: Any) -> np.ndarray:
    """Values as llama.cpp keeps them: Llama's heads in another order, Gemma's norms increased by one."""
    if config.model_type == "llama" and (".q_proj." in name or ".k_proj." in name):
        heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
        return array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
    if config.model_type == "gemma3_text" and name.endswith("norm.weight"):
        return array + 1
    return array


def after_storing(name: str, array: np.ndarray, kind: gguf.GGMLQuantizationType, config: Any) -> np.ndarray:
    """What is left of a parameter when it was stored in a type."""
    if array.ndim == 1:
        return as_stored(name, array, config) - 1 if "norm" in name and config.model_type == "gemma3_text" else array
    rows = gguf.quants.dequantize(gguf.quants.quantize(as_stored(name, array, config), kind), kind)
    if config.model_type == "llama" and (".q_proj." in name or ".k_proj." in name):
        heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
        return rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)
    return rows
