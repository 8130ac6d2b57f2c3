"""What a GGUF file states about its model's calculation and transformers' reader leaves out, put into the configuration
or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from transformers import PreTrainedConfig, PreTrainedModel

from factpatch.errors import InputError
from factpatch.models.sources.header import Header

# Keys of a file -> attribute of the configuration, where that has one.
ATTRIBUTES = {
    "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "feed_forward_length": "n_inner",
    "context_length": "n_positions",
}
FACTORS = "rope_freqs.weight"  # by which the rotary frequencies of Llama 3.1 and later are divided
LLAMA3 = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def completed_config(file: Path, header: Header, config: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration with what the file states besides; InputError for what it cannot express."""
    values = config.to_dict()
    for key, attribute in ATTRIBUTES.items():
        if header.own(key) is not None and attribute in values and "global_head_dim" not in values:
            values[attribute] = header.own(key)
    values.pop("_model_name_or_path", None)
    values["rope_parameters"] = _rotary(file, header, values.get("rope_parameters"))
    if values["rope_parameters"] is None:
        del values["rope_parameters"]
    return type(config).from_dict(values)


def _rotary(file: Path, header: Header, parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """The rotary embedding's parameters with base and scaling as the file states them."""
    kind = header.own("rope.scaling.type") or "none"
    factor = header.own("rope.scaling.factor") or 1.0
    names = {tensor.name for tensor in header.tensors}
    read = kind in {"none", "linear"} or header.architecture == "gpt-oss"  # whose scaling transformers reads itself
    if not read or "rope_factors_long.weight" in names:
        raise InputError(f"'{file}' scales its rotary positions ('{kind}'), which transformers does not read from GGUF")
    if parameters is None:
        return None
    base = header.own("rope.freq_base")
    nested = parameters.get("full_attention")  # of models whose layers differ
    whole = dict(nested or parameters)
    if base is not None:
        whole["rope_theta"] = base
    if kind == "linear" and factor != 1.0:
        whole |= {"rope_type": "linear", "factor": factor}
    if FACTORS in names:
        whole |= LLAMA3 | {"factor": float(_factors(file).max())}
    return {**parameters, "full_attention": whole} if nested else whole


def check_rotary(file: Path, header: Header, model: PreTrainedModel) -> None:
    """InputError unless a file's own factors give the frequencies that the model computes with."""
    if all(tensor.name != FACTORS for tensor in header.tensors):
        return
    used = model.get_buffer("model.rotary_emb.inv_freq").double()
    plain = model.config.rope_parameters["rope_theta"] ** -torch.arange(0, 1, 1 / len(used), dtype=torch.float64)
    if not torch.allclose(used, plain / _factors(file), rtol=1e-4):
        raise InputError(f"'{file}' scales its rotary positions as no model that transformers knows ({FACTORS})")


def _factors(file: Path) -> torch.Tensor:
    found = next(tensor for tensor in GGUFReader(file).tensors if tensor.name == FACTORS)
    return torch.from_numpy(found._asdict()["data"].copy()).double()
