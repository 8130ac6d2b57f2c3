"""A model with all but the values of its parameters, made as `from_pretrained` makes it before it loads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import build_glob_alternation

from factpatch.settings.config import ModelSettings


def unfilled_model(folder: Path, settings: ModelSettings, **options: Any) -> PreTrainedModel:
    """The model of a folder with its parameters, and the buffers that files hold, on the meta device; other buffers
    have the values that the class computes. `options` are those of `from_pretrained`."""
    config, dtype = AutoConfig.from_pretrained(folder, **options), getattr(torch, settings.dtype)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            config, dtype=dtype, trust_remote_code=options.get("trust_remote_code", False)
        )
    _keep_in_float32(model, dtype)
    _compute_buffers(model)
    vars(model)["_weight_conversions"] = get_model_conversion_mapping(model)
    if model.can_generate():
        model.generation_config = _generation_config(folder)
    return model


def _keep_in_float32(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Give parameters that the class keeps in float32 that type."""
    plan = model._get_dtype_plan(dtype)
    if not plan:
        return
    pattern = build_glob_alternation(list(plan))[0]
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):
        if pattern.search(name):
            owner, _, leaf = name.rpartition(".")
            kept = torch.empty_like(parameter, dtype=torch.float32)
            model.get_submodule(owner)._parameters[leaf] = torch.nn.Parameter(kept)


def _compute_buffers(model: PreTrainedModel) -> None:
    """Buffers that no file holds: classes compute them while they initialize what has no values."""
    for name, buffer in list(model.named_non_persistent_buffers()):
        owner, _, leaf = name.rpartition(".")
        model.get_submodule(owner)._buffers[leaf] = torch.empty_like(buffer, device="cpu")
    for tensor in model.state_dict(keep_vars=True).values():
        vars(tensor)["_is_hf_initialized"] = True
    model.initialize_weights()


def _generation_config(folder: Path) -> GenerationConfig:
    """What comes with the model, or what its configuration says."""
    try:
        return GenerationConfig.from_pretrained(folder)
    except OSError:
        return GenerationConfig.from_pretrained(folder, config_file_name="config.json", _from_model_config=True)
