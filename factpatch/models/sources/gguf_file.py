"""A GGUF file made an ordinary model folder, once: read by transformers, written as safetensors, read back and
compared."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import psutil
import torch
from gguf import GGMLQuantizationType
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.integrations.gguf import GGUF_CONFIG_ARCHS
from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES
from transformers.utils import logging as transformers_logging

from factpatch.errors import InputError
from factpatch.files import new_folder
from factpatch.models.sources.gguf_config import check_rotary, completed_config
from factpatch.models.sources.gguf_tokenizer import end_ids, read_tokenizer
from factpatch.models.sources.header import Header, read_gguf_header
from factpatch.models.sources.saving import ConvertedModel, prompt_logits, save_proved

HALVES = {GGMLQuantizationType.F16: torch.float16, GGMLQuantizationType.BF16: torch.bfloat16}
READ_AS = {"gpt-oss": "gpt_oss", "qwen2moe": "qwen2_moe", "qwen3moe": "qwen3_moe", "minimax-m2": "minimax_m2"}
LOGIT_TOLERANCE = 1e-5  # of logits, as a share of their largest: the tensors are the same bits
ERRORS = (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError, ImportError)
# ^ what transformers and gguf raise on files that they cannot read


def import_gguf(file: Path, output: Path) -> ConvertedModel:
    """Make an ordinary model folder of a GGUF file, with tokenizer, chat template and the tokens that end an answer.

    Raises InputError where the file is no language model that transformers can read whole, and RefusedError where what
    was written is not what was read.
    """
    header = read_gguf_header(file)
    _check_architecture(file, header)
    dtype = gguf_dtype(header)
    _check_room(file, header, dtype, output)
    with new_folder(output) as folder, _quietly():
        config = _read_config(file, header)
        tokenizer = read_tokenizer(file, header)
        model = _read_model(file, header, config, dtype)
        check_rotary(file, header, model)
        logits = prompt_logits(model, tokenizer)
        plain = _plain_model(model, config)
        del model  # its tensors live on
        plain.generation_config = GenerationConfig.from_model_config(config)
        plain.generation_config.eos_token_id = end_ids(tokenizer, header)
        made = save_proved(plain, tokenizer, folder, f"'{file}' ({_types(header)})", logits, LOGIT_TOLERANCE)
    return ConvertedModel(made.source, output, made.dtype, made.size, made.difference)


def gguf_dtype(header: Header) -> torch.dtype:
    """The type that a folder made of the file holds: the file's own where all matrices have one float type, else
    float32, which holds what quantized values stand for. (Vectors are float32 in every GGUF file.)"""
    types = {tensor.type for tensor in header.tensors if len(tensor.shape) > 1}
    return HALVES.get(types.pop(), torch.float32) if len(types) == 1 else torch.float32


def _check_architecture(file: Path, header: Header) -> None:
    known = {*GGUF_SUPPORTED_ARCHITECTURES, *GGUF_CONFIG_ARCHS}
    if READ_AS.get(header.architecture, header.architecture) not in known:
        raise InputError(
            f"'{file}' is of architecture '{header.architecture}', which transformers cannot read from GGUF files; "
            "give the model's folder of safetensors"
        )


def _check_room(file: Path, header: Header, dtype: torch.dtype, output: Path) -> None:
    """InputError where the folder would not fit on the disk, or in memory the weights, which are held twice for a
    moment, beside a tensor that is being converted."""
    values, largest = sum(tensor.values for tensor in header.tensors), max(tensor.values for tensor in header.tensors)
    place = next(parent for parent in output.absolute().parents if parent.exists())
    for size, free, where in (
        (values * dtype.itemsize, shutil.disk_usage(place).free, f"on the disk of '{place}'"),
        (2 * values * dtype.itemsize + 4 * largest, psutil.virtual_memory().available, "of memory"),
    ):
        if size > free:
            name = str(dtype).removeprefix("torch.")
            told = f"{size / 1e9:.1f} GB as {name}, and {free / 1e9:.1f} GB are free {where}"
            raise InputError(f"'{file}' takes {told}; make room")


def _read_config(file: Path, header: Header) -> PreTrainedConfig:
    try:
        config = AutoConfig.from_pretrained(str(file.parent), gguf_file=file.name, local_files_only=True)
        return completed_config(file, header, config)
    except ERRORS as error:
        raise InputError(f"'{file}' has no configuration that transformers can read: {_told(error)}") from error


def _read_model(file: Path, header: Header, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The model as transformers reads it; InputError unless every parameter comes from the file, and every value of
    the file is used."""
    try:
        model: PreTrainedModel
        info: dict[str, Any]
        model, info = AutoModelForCausalLM.from_pretrained(  # type: ignore[misc]  # with `output_loading_info`
            str(file.parent),
            gguf_file=file.name,
            config=config,
            dtype=dtype,
            local_files_only=True,
            output_loading_info=True,
        )
    except ERRORS as error:
        raise InputError(f"'{file}' cannot be read as a causal language model: {_told(error)}") from error
    if info["missing_keys"]:
        names = ", ".join(sorted(info["missing_keys"])[:3])
        raise InputError(f"'{file}' lacks weights that its architecture needs: {names}; the file is not whole")
    given = sum(tensor.values for tensor in header.tensors if tensor.name not in {"rope_freqs.weight"})
    taken = sum(parameter.numel() for parameter in model.parameters())
    if given != taken:
        raise InputError(
            f"'{file}' holds {given:,} values, and the {type(model).__name__} that transformers makes of it takes "
            f"{taken:,}: it would be another model; give the model's folder of safetensors"
        )
    return model.eval()


def _plain_model(model: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
    """The same tensors in a model that can be saved, as one read from a GGUF file counts as quantized."""
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    for name, buffer in model.named_buffers():  # those that no state holds
        owner, _, own = name.rpartition(".")
        plain.get_submodule(owner).register_buffer(own, buffer, persistent=False)
    return plain.eval()


def _types(header: Header) -> str:
    """Names of the types that hold the file's matrices, that of most values first."""
    counts: dict[str, int] = {}
    for tensor in header.tensors:
        if len(tensor.shape) > 1:
            counts[tensor.type.name] = counts.get(tensor.type.name, 0) + tensor.values
    return ", ".join(sorted(counts, key=lambda name: -counts[name]))


def _told(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


@contextmanager
def _quietly() -> Iterator[None]:
    """No progress bars where nobody watches, as the reader draws its own in any case; and no tables of what a file
    lacks, which is told in a line."""
    told = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with nullcontext() if sys.stderr.isatty() else redirect_stderr(StringIO()):
            yield
    finally:
        transformers_logging.set_verbosity(told)
