"""Loading a causal language model, and knowing it again."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.weak import WeakTensorKeyDictionary
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from factpatch.addresses import HUB_TIMEOUT
from factpatch.errors import InputError
from factpatch.models.checkpoints.folder import Checkpoint, read_checkpoint, refuse_adapter
from factpatch.models.checkpoints.mapping import StoredParameters, map_parameters
from factpatch.models.checkpoints.tensors import tensor_digest
from factpatch.models.placement import held, hold, is_streamed, stream_blocks, stream_of
from factpatch.models.sources.resolve import resolve_source
from factpatch.models.tokenization import check_package, check_tokenizer, known_rows
from factpatch.models.unfilled import unfilled_model
from factpatch.settings.config import ModelSettings

log = logging.getLogger(__name__)

HUB_FILES = ["*.json", "*.jinja", "*.md", "*.model", "*.py", "*.txt", "LICENSE*", "model*.safetensors"]

_known = WeakTensorKeyDictionary()  # tensor -> its state when it was hashed last, and its digest


@dataclass(frozen=True)
class LoadedModel:
    """A frozen model in evaluation mode with its tokenizer.

    `source` is the folder or hub name it came from, `stored` says how its parameters lie in the files there: edited
    values are rounded to the types that these have, so that what is measured is what an exported checkpoint holds.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: str
    stored: StoredParameters


def load_model(settings: ModelSettings) -> LoadedModel:
    """Load weights (safetensors only) in the stated dtype, every parameter frozen.

    Raises InputError when the folder or hub name is absent, holds no causal language model or not the whole of it, or
    needs code of its own.
    """
    source = find_source(settings.path)
    check_package(source)
    checkpoint = open_checkpoint(source)
    streamed = is_streamed(settings, checkpoint)
    model, tokenizer = _from_pretrained(source, checkpoint.folder, settings, streamed)
    check_tokenizer(tokenizer, known_rows(model.config), source)
    stored = _stored(model, checkpoint)
    model.requires_grad_(False)
    try:
        if streamed:
            stream_blocks(stored, torch.device(settings.device))
        else:
            nn.Module.to(model, torch.device(settings.device))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"model.device '{settings.device}' cannot be used ({reason}); cpu always can") from error
    return LoadedModel(model.eval(), tokenizer, source, stored)


def _from_pretrained(
    source: str, folder: Path, settings: ModelSettings, unfilled: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """What transformers makes of a folder, or all of it but the parameters' values; InputError where it fails, or lacks
    or cannot place a tensor."""
    options = {"trust_remote_code": settings.trust_remote_code, "local_files_only": local_only(source)}
    told = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # what it reports of tensors is refused or said here, in a line
    try:
        load = _unfilled if unfilled else _filled
        model, found = load(folder, settings, options)
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    except Exception as error:  # whatever configurations, code of the model's own and libraries under it raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"model '{source}' cannot be loaded as a causal language model: {reason}") from error
    finally:
        transformers_logging.set_verbosity(told)
    for name, there, wanted in sorted(found["mismatched_keys"]):
        raise _mismatched(source, name, there, wanted)
    if missing := sorted(found["missing_keys"]):
        raise _missing(source, missing, model)
    return model, tokenizer


def _filled(folder: Path, settings: ModelSettings, options: Mapping[str, Any]) -> tuple[PreTrainedModel, Any]:
    """The model with its values, and what of these was missing or of another shape."""
    pair: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        config=AutoConfig.from_pretrained(folder, **options),
        dtype=getattr(torch, settings.dtype),
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are refused by name
        **options,
    )
    model, found = pair
    return model, found


def _unfilled(folder: Path, settings: ModelSettings, options: Mapping[str, Any]) -> tuple[PreTrainedModel, Any]:
    """The model without values; what its files lack is found when they are mapped."""
    return unfilled_model(folder, settings, **options), {"mismatched_keys": (), "missing_keys": ()}


def _stored(model: PreTrainedModel, checkpoint: Checkpoint) -> StoredParameters:
    """How the model lies in its files; InputError if a parameter is in none of them, or of another shape there. What
    the class leaves out of the files is said once."""
    stored = map_parameters(model, checkpoint)
    for tensor, there, wanted in stored.mismatched():
        raise _mismatched(str(checkpoint.folder), tensor, there, wanted)
    if missing := stored.missing():
        raise _missing(str(checkpoint.folder), missing, model)
    if unused := stored.unused():
        _say_once(
            f"model '{checkpoint.folder}': {type(model).__name__} does not load {_named(unused)} of its files; what is "
            "not loaded stays as it is"
        )
    return stored


def _mismatched(source: str, name: str, there: Sequence[int], wanted: Sequence[int]) -> InputError:
    return InputError(
        f"model '{source}': tensor '{name}' has shape {list(there)} in the file and {list(wanted)} by config.json; "
        "the two are not of one model"
    )


def _missing(source: str, names: Sequence[str], model: PreTrainedModel) -> InputError:
    return InputError(
        f"model '{source}': its files lack {_named(names)} that {type(model).__name__} needs; without them it would "
        "compute with random numbers: download it again"
    )


def _named(names: Sequence[str]) -> str:
    """How many tensors there are, with the names of the first few."""
    more = ", …" if len(names) > 3 else ""
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} ({', '.join(names[:3])}{more})"


@cache
def _say_once(text: str) -> None:
    log.warning(text)


def open_checkpoint(source: str) -> Checkpoint:
    """The files of a model's path or hub name, which are fetched where they are not on this machine; InputError where
    they cannot be had or are not whole."""
    if Path(source).is_dir():
        return read_checkpoint(Path(source))
    try:
        folder = huggingface_hub.snapshot_download(
            source, allow_patterns=HUB_FILES, local_files_only=local_only(source)
        )
    except Exception as error:  # whatever the network or the hub raises
        reason = " ".join(str(error).split())[:300]
        if local_only(source):
            reason = "it was not downloaded before, and the hub does not give it now; check the name and the network"
        raise InputError(f"model '{source}' cannot be loaded as a causal language model: {reason}") from error
    return read_checkpoint(Path(folder))


def load_tokenizer(settings: ModelSettings) -> PreTrainedTokenizerBase:
    """The model's tokenizer alone; InputError where it cannot be had."""
    source = find_source(settings.path)
    check_package(source)
    options = {"trust_remote_code": settings.trust_remote_code, "local_files_only": local_only(source)}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        config = AutoConfig.from_pretrained(source, **options)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"model '{source}' gives no tokenizer: {reason}") from error
    check_tokenizer(tokenizer, known_rows(config), source)
    return tokenizer


def embedding_rows(settings: ModelSettings) -> int | None:
    """For how many ids the model has an embedding, by its configuration alone; None where that does not say."""
    source = find_source(settings.path)
    options = {"trust_remote_code": settings.trust_remote_code, "local_files_only": local_only(source)}
    return known_rows(AutoConfig.from_pretrained(source, **options))


def find_source(path: str | None) -> str:
    """The folder or hub name to load, for a GGUF file or an adapter the folder made of it; InputError if none is named,
    or it is neither an existing folder nor shaped like a hub name."""
    if path is None:
        raise InputError("no model is named; give --model FOLDER_OR_HUB_NAME, or set model.path in params.yaml")
    path = resolve_source(path, load_model)
    folder = Path(path)
    if folder.is_dir():
        if not (folder / "config.json").exists():
            refuse_adapter(folder)
            raise InputError(f"model folder '{path}' has no config.json; name the folder that save_pretrained wrote")
        return path
    looks_like_path = path.startswith((".", "/", "~")) or path.count("/") != 1 or path.split("/")[0] in {"data", "runs"}
    if looks_like_path or folder.exists():
        raise InputError(
            f"model folder '{path}' does not exist; give a folder with config.json or a hub name owner/model"
        )
    return path


def check_source(path: str | None) -> str:
    """The model's path or hub name, as `find_source` gives it; of a folder also the headers of its weights are read, so
    that what cannot be loaded is told before any work."""
    source = find_source(path)
    if Path(source).is_dir():
        open_checkpoint(source)
    return source


@cache
def local_only(source: str) -> bool:
    """Whether a model can only come from this machine: a folder, or a name that the hub does not give now.

    The hub is asked first and briefly, as transformers repeats a failing call for long, and once in a process.
    """
    if Path(source).is_dir() or huggingface_hub.constants.HF_HUB_OFFLINE:
        return True
    try:
        huggingface_hub.HfApi().model_info(source, timeout=HUB_TIMEOUT)
    except Exception:  # whatever the network or the hub raises: what was downloaded before still serves
        return True
    return False


@contextmanager
def preserved(model: PreTrainedModel, names: Sequence[str]) -> Iterator[list[torch.Tensor]]:
    """When the block ends, in any way, the named parameters are bit for bit as before, frozen and without gradient.
    Yields their values as found."""
    with held(model, names):
        parameters = [model.get_parameter(name) for name in names]
        originals = [parameter.detach().clone() for parameter in parameters]
        try:
            yield originals
        finally:
            for parameter, original in zip(parameters, originals, strict=True):
                parameter.requires_grad_(False).copy_(original)
                parameter.grad = None


def write_values(model: PreTrainedModel, values: dict[str, torch.Tensor]) -> None:
    """Copy new values into the named parameters, in place."""
    hold(model, list(values))
    with torch.no_grad():
        for name, value in values.items():
            model.get_parameter(name).copy_(value)


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of how a tokenizer splits text and which ids it gives."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = backend.to_str() if backend else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    return hashlib.sha256(vocabulary.encode()).hexdigest()


def tensor_digests(model: PreTrainedModel) -> dict[str, str]:
    """The digest of every parameter and buffer by name, each hashed now; tied tensors stand under each of their
    names."""
    return _hash(model, _tensors(model))


def known_digests(model: PreTrainedModel, but: Collection[str] = ()) -> dict[str, str]:
    """As `tensor_digests`, `but` for some; a tensor that nothing wrote to since it was hashed is not hashed again.

    Writes are seen by torch's version counter, as all operations in place count them. What goes through `.data` evades
    it, so this is no proof: what must be proven is compared with the files (`StoredParameters.differing`).
    """
    tensors = {name: tensor for name, tensor in _tensors(model).items() if name not in but}
    kept = {name: _known[tensor] for name, tensor in tensors.items() if tensor in _known}
    digests = {name: digest for name, (state, digest) in kept.items() if state == _state(tensors[name])}
    digests |= _hash(model, {name: tensor for name, tensor in tensors.items() if name not in digests})
    return {name: digests[name] for name in tensors}


def _tensors(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Every parameter and buffer."""
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return dict(named)


def _hash(model: PreTrainedModel, tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Digests by name, which are remembered."""
    stream, away = stream_of(model), [name for name, tensor in tensors.items() if tensor.is_meta]
    in_files = stream.digests(away) if stream else {}
    distinct = {id(tensor): tensor for tensor in tensors.values() if not tensor.is_meta}
    with ThreadPoolExecutor() as pool:  # hashing runs outside the interpreter's lock
        digests = dict(zip(distinct, pool.map(tensor_digest, distinct.values()), strict=True))
    for key, tensor in distinct.items():
        if not tensor.is_inference():  # their writes are not counted
            _known[tensor] = (_state(tensor), digests[key])
    return {name: in_files.get(name) or digests[id(tensor)] for name, tensor in tensors.items()}


def _state(tensor: torch.Tensor) -> tuple[object, ...]:
    """Another one once the tensor was written to, or got other memory (whose address may be the old one)."""
    storage = StorageWeakRef(tensor.untyped_storage())
    return storage, tensor.storage_offset(), tensor.dtype, tensor.shape, tensor._version


def fingerprint(digests: dict[str, str]) -> str:
    """One SHA-256 for a whole model, from the digests of its tensors."""
    lines = "\n".join(f"{name} {digests[name]}" for name in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()
