"""A model that the caller loaded with transformers, used as one of ours for a while and given back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from factpatch.errors import InputError
from factpatch.models.checkpoints.folder import read_checkpoint
from factpatch.models.checkpoints.mapping import StoredParameters, map_in_memory, map_parameters
from factpatch.models.loading import HUB_FILES, LoadedModel
from factpatch.models.tokenization import check_tokenizer, known_rows

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@contextmanager
def borrow(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Iterator[LoadedModel]:
    """The model frozen and in evaluation mode while the block lasts; its modes and gradients are restored after it.

    Where its values are bit for bit what the files give that it was loaded from, it is known by those; else, as after
    fine-tuning, by what lies in memory. Raises InputError for what cannot be edited in memory.
    """
    refuse_foreign(model)
    source = source_of(model)
    check_tokenizer(tokenizer, known_rows(model.config), source)
    stored = stored_in_files(model)
    if stored is None or stored.missing() or stored.differing():
        stored = map_in_memory(model, source)
    modes = [(module, module.training) for module in model.modules()]
    gradients = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        yield LoadedModel(model, tokenizer, source, stored)
    finally:
        for module, training in modes:
            module.training = training
        for parameter, wanted, gradient in gradients:
            parameter.requires_grad_(wanted).grad = gradient


def refuse_foreign(model: object) -> None:
    """InputError for anything but a plain transformers model whose weights are all in memory, as numbers."""
    kind = type(model).__name__
    if not isinstance(model, PreTrainedModel):
        advice = "load one with AutoModelForCausalLM.from_pretrained, and of an adapter take merge_and_unload()"
        raise InputError(f"a {kind} is no transformers model; {advice}")
    if getattr(model, "hf_quantizer", None) is not None:
        raise InputError(f"the weights of this {kind} are quantized, which cannot be edited; load it in bfloat16")
    if model.dtype not in DTYPES:
        raise InputError(f"this {kind} is in {model.dtype}; load it in torch.float32, bfloat16 or float16")
    if any(parameter.is_meta for parameter in model.parameters()):
        raise InputError(f"some weights of this {kind} are offloaded; load it without offloading")


def source_of(model: PreTrainedModel) -> str:
    """The folder or hub name that the model says it came from; its class where it says none."""
    return model.name_or_path or type(model).__name__


def stored_in_files(model: PreTrainedModel) -> StoredParameters | None:
    """How the model lies in the files of the folder or hub name that it came from; None where they are not at hand."""
    source = model.name_or_path
    if not source:
        return None
    try:
        if not Path(source).is_dir():  # of a hub name, the very commit, from this machine
            commit = getattr(model.config, "_commit_hash", None)
            source = huggingface_hub.snapshot_download(
                source, revision=commit, allow_patterns=HUB_FILES, local_files_only=True
            )
        return map_parameters(model, read_checkpoint(Path(source)))
    except (InputError, OSError, ValueError):  # none, or others than safetensors
        return None
