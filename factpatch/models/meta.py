"""A model without its weights, on torch's meta device: shapes and names of its tensors, and no values."""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from factpatch.errors import InputError
from factpatch.models.loading import find_source, local_only
from factpatch.settings.config import ModelSettings


def meta_model(settings: ModelSettings) -> PreTrainedModel:
    """The settings' model without weights, in the dtype it will have; InputError if its configuration is none."""
    source = find_source(settings.path)
    try:
        config = AutoConfig.from_pretrained(
            source, trust_remote_code=settings.trust_remote_code, local_files_only=local_only(source)
        )
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(
                config, dtype=getattr(torch, settings.dtype), trust_remote_code=settings.trust_remote_code
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"model '{source}' has no configuration of a causal language model: {reason}") from error
