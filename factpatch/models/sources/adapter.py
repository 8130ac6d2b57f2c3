"""A PEFT adapter merged with its base model into an ordinary model folder, once."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from factpatch.errors import InputError
from factpatch.files import new_folder
from factpatch.models.checkpoints.mapping import StoredParameters
from factpatch.models.checkpoints.tensors import main_type
from factpatch.models.sources.kinds import ADAPTER_CONFIG, adapter_base, is_adapter, read_adapter_config
from factpatch.models.sources.saving import ConvertedModel, prompt_logits, save_proved
from factpatch.settings.config import ModelSettings

ADAPTER_WEIGHTS = "adapter_model.safetensors"
MERGE_TOLERANCE = 1e-3  # of logits, as a share of their largest, in float32: sums are taken in another order


class Base(Protocol):
    """A base model as it is loaded: with its tokenizer, where it came from, and how it lies in its files."""

    @property
    def model(self) -> PreTrainedModel: ...
    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...
    @property
    def source(self) -> str: ...
    @property
    def stored(self) -> StoredParameters: ...


Loader = Callable[[ModelSettings], Base]


def merge_adapter(source: Path, output: Path, load: Loader) -> ConvertedModel:
    """Add a LoRA adapter's changes to its base model's weights and save the result as an ordinary model folder, in the
    type that the base is stored in, with the adapter's own tokenizer if it has one. `load` loads the base.

    Raises InputError where the adapter is of another kind or does not fit its base.
    """
    config, base = read_adapter_config(source), adapter_base(source)
    stored = _stored_names(source)
    _check_kind(source, config, base)
    loaded = load(ModelSettings(path=base))
    tokenizer = _tokenizer(source, loaded)
    with new_folder(output) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's; what matters of them is checked here
        adapted = _adapted(source, loaded, stored)
        logits = prompt_logits(adapted, tokenizer)
        merged = adapted.merge_and_unload()
        difference = _difference(prompt_logits(merged, tokenizer), logits)
        if not difference <= MERGE_TOLERANCE * float(logits.abs().max()):
            raise InputError(f"adapter '{source}' cannot be merged: logits would differ by {difference:.2g} afterwards")
        _cast(merged, main_type(loaded.stored.checkpoint))
        told = f"adapter '{source}' and its base '{base}'"
        made = save_proved(merged, tokenizer, folder, told, prompt_logits(merged, tokenizer), 1e-5)
    return replace(made, folder=output, difference=max(difference, made.difference))


def _cast(model: nn.Module, dtype: torch.dtype) -> None:
    """Put parameters of that type in place of a model's own; tied ones stay tied, and buffers keep their precision."""
    cast: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            made = cast.setdefault(id(parameter), nn.Parameter(parameter.detach().to(dtype), requires_grad=False))
            setattr(module, name, made)


def _check_kind(source: Path, config: dict[str, Any], base: str) -> None:
    if config.get("peft_type") != "LORA":
        raise InputError(
            f"adapter '{source}' is of kind '{config.get('peft_type')}'; only LoRA is merged, so merge it with peft "
            "and give the folder that save_pretrained writes"
        )
    if is_adapter(Path(base)):
        raise InputError(
            f"adapter '{source}': its base '{base}' is an adapter too; make a model of that first (factpatch import) "
            f"and name it as base_model_name_or_path in {ADAPTER_CONFIG}"
        )


def _stored_names(source: Path) -> set[str]:
    """Names of the adapter's tensors; InputError if they cannot be read, or lie only in a pickle."""
    path = source / ADAPTER_WEIGHTS
    if not path.exists():
        found = (
            "adapter_model.bin, a pickle, which is never read" if (source / "adapter_model.bin").exists() else "none"
        )
        raise InputError(f"adapter '{source}' has no {ADAPTER_WEIGHTS} but {found}; save it anew with a present peft")
    try:
        with safe_open(path, "pt") as file:
            return set(file.keys())
    except (OSError, SafetensorError) as error:
        raise InputError(f"adapter '{source}': {ADAPTER_WEIGHTS} cannot be read ({error}); fetch it again") from error


def _adapted(source: Path, loaded: Base, stored: set[str]) -> Any:
    """The base with the adapter beside its weights; InputError unless all of the adapter finds its place."""
    from peft import PeftModel, get_peft_model_state_dict  # takes seconds to import

    try:
        adapted = PeftModel.from_pretrained(loaded.model, str(source), torch_device="cpu")
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"adapter '{source}' does not fit its base '{loaded.source}': {reason}") from error
    expected = set(get_peft_model_state_dict(adapted))
    for names, told in ((stored - expected, "has no place for"), (expected - stored, "needs, and the adapter lacks,")):
        if names:
            raise InputError(f"adapter '{source}' does not fit: its base '{loaded.source}' {told} {min(names)}")
    return adapted.eval()


def _tokenizer(source: Path, loaded: Base) -> PreTrainedTokenizerBase:
    """The adapter's own, or the base's; InputError if it gives ids that the base has no embedding for."""
    if not (source / "tokenizer_config.json").exists():
        return loaded.tokenizer
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source), local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"adapter '{source}' gives no tokenizer: {reason}") from error
    rows = loaded.model.get_input_embeddings().weight.shape[0]  # type: ignore[index, union-attr]
    last = max(tokenizer.get_vocab().values())
    if last >= rows:
        raise InputError(
            f"adapter '{source}': its tokenizer has ids up to {last}, and its base '{loaded.source}' embeddings for "
            f"{rows}; merge it with peft and give the folder that save_pretrained writes"
        )
    return tokenizer


def _difference(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).abs().max())
