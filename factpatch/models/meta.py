"""A model without its weights, on torch's meta device: shapes and names of its tensors, and no values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from factpatch.errors import InputError
from factpatch.models.loading import find_source, local_only
from factpatch.settings.config import ModelSettings


def meta_model(settings: ModelSettings) -> PreTrainedModel:
    """The settings' model without weights, in the dtype it will have; InputError if its configuration is none."""
    source = find_source(settings.path)
    config = _configuration(source, settings)
    with _told(source), torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, settings.dtype), trust_remote_code=settings.trust_remote_code
        )


def stored_type(settings: ModelSettings) -> torch.dtype:
    """The dtype of the weights in the files, by the configuration; that which they are loaded in where it says none."""
    stored, loaded = _configuration(find_source(settings.path), settings).dtype, getattr(torch, settings.dtype)
    return stored if isinstance(stored, torch.dtype) else loaded


def _configuration(source: str, settings: ModelSettings) -> PretrainedConfig:
    with _told(source):
        config: PretrainedConfig = AutoConfig.from_pretrained(
            source, trust_remote_code=settings.trust_remote_code, local_files_only=local_only(source)
        )
        return config


@contextmanager
def _told(source: str) -> Iterator[None]:
    """InputError for whatever is wrong with a model's configuration."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"model '{source}' has no configuration of a causal language model: {reason}") from error
