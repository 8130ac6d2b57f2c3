"""The weights in a model folder, known from the headers of its files alone: nothing of them is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factpatch.errors import InputError
from factpatch.files import read_json
from factpatch.models.checkpoints.headers import BITS, TensorEntry, is_pointer, pointer_error, read_header

WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
QUANTIZED_FILES = ("hf_quant_config.json", "quantize_config.json", "quant_config.json")  # ModelOpt, GPTQ, AWQ
QUANTIZED_NAME = re.compile(
    r"(\.|_)(qweight|qzeros|g_idx|weight_packed|weight_scale\w*|scale_inv|SCB|absmax|quant_state\S*)$"
)
INTEGERS = {"I8", "U8", "I32", "U32"}  # types that packed weights have, and ordinary ones never
CONVERSION = "AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW)"


@dataclass(frozen=True)
class Checkpoint:
    """A model folder and every tensor in its weight files, by the name that it has there.

    `in_memory` ones have no files: their tensors are those of a loaded model, and `folder` is a name to be told.
    """

    folder: Path
    tensors: Mapping[str, TensorEntry]
    in_memory: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the weights."""
        return tuple(sorted({entry.file for entry in self.tensors.values()}))


def read_checkpoint(folder: Path) -> Checkpoint:
    """What a folder's weight files hold.

    Raises InputError, by the name of what is wrong, for weights that are absent, cut short, quantized, pickled or not
    what the index says, for two sets of them, and for an adapter beside them.
    """
    config = read_config(folder)
    refuse_adapter(folder)
    _refuse_pointers(folder)
    _refuse_quantized_config(folder, config)
    named = config.get("transformers_weights")  # a configuration may name its weights; transformers heeds it
    weights = folder / named if isinstance(named, str) else _weights(folder)
    checkpoint = Checkpoint(folder, _read_shards(weights) if weights.suffix == ".json" else read_header(weights))
    if not checkpoint.tensors:
        raise InputError(f"'{weights}' holds no tensor; download it again")
    _refuse_quantized_tensors(checkpoint)
    return checkpoint


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` as it stands there; InputError if it is no JSON object."""
    path = folder / "config.json"
    if path.is_file() and is_pointer(path):
        raise pointer_error(path)
    config = read_json(path)
    if not isinstance(config, dict):
        raise InputError(f"'{path}' is no JSON object; download it again")
    return config


def refuse_adapter(folder: Path) -> None:
    """InputError if a folder holds an adapter: its weights would be ignored."""
    if (folder / ADAPTER).exists():
        raise InputError(
            f"model folder '{folder}' holds an adapter ({ADAPTER}), which is not loaded; merge the adapter first, with "
            "PEFT's merge_and_unload, and name the folder of the merged model"
        )


def _weights(folder: Path) -> Path:
    """The file that transformers loads: the weights, or the index of their parts."""
    whole, index = folder / WEIGHTS_FILE, folder / INDEX_FILE
    if whole.exists() and index.exists() and set(_weight_map(index).values()) != {WEIGHTS_FILE}:
        raise InputError(
            f"model folder '{folder}' holds two sets of weights, {WEIGHTS_FILE} and the parts that {INDEX_FILE} names; "
            "move away the one that is not meant"
        )
    if index.exists() or whole.exists():
        return index if index.exists() else whole
    pickled = sorted(path.name for path in folder.glob("pytorch_model*.bin"))
    if pickled:
        raise InputError(
            f"model folder '{folder}' holds its weights as pickle ({pickled[0]}), which can run code and is not read; "
            f"convert them where you trust them: {CONVERSION}"
        )
    if parts := sorted(path.name for path in folder.glob("model-*-of-*.safetensors")):
        raise InputError(f"model folder '{folder}' has {parts[0]} but no {INDEX_FILE}; download that too")
    raise InputError(f"model folder '{folder}' has no weights: neither {WEIGHTS_FILE} nor {INDEX_FILE} is there")


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor names to file names, as an index gives them."""
    if index.is_file() and is_pointer(index):
        raise pointer_error(index)
    value = read_json(index)
    found = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(found, dict) or not found:
        raise InputError(f"'{index}' has no weight_map; download it again")
    for name, file in found.items():
        if not isinstance(file, str) or not file or Path(file).name != file:
            raise InputError(f"'{index}' names no file in its folder for '{name}': {file!r}")
    return found


def _read_shards(index: Path) -> dict[str, TensorEntry]:
    """The tensors of all files that an index names; InputError where these do not hold what it says."""
    listed, folder = _weight_map(index), index.parent
    tensors: dict[str, TensorEntry] = {}
    for file in sorted(set(listed.values())):
        if not (folder / file).is_file():
            raise InputError(f"'{index}' names {file}, which is not there; download it")
        found = read_header(folder / file)
        if twice := sorted(found.keys() & tensors.keys()):
            raise InputError(f"tensor '{twice[0]}' stands in {tensors[twice[0]].file.name} and in {file} of '{folder}'")
        tensors |= found
    for name in sorted(listed.keys() | tensors.keys()):
        held = tensors[name].file.name if name in tensors else None
        if held != listed.get(name):
            raise InputError(
                f"'{index}' disagrees with the files: tensor '{name}' is listed for {listed.get(name, 'no file')} and "
                f"stands in {held or 'none'}; download the folder again"
            )
    return tensors


def _refuse_pointers(folder: Path) -> None:
    """InputError if Git left a pointer in place of a file that loading a model may read."""
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".model", ".txt", ".jinja") and path.is_file() and is_pointer(path):
            raise pointer_error(path)


def _refuse_quantized_config(folder: Path, config: Mapping[str, Any]) -> None:
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        found = part.get("quantization_config") or part.get("compression_config")
        if found:
            method = found.get("quant_method") or found.get("quant_algo") if isinstance(found, dict) else None
            raise _quantized(folder, f"config.json says {method or 'so'}")
    if present := [name for name in QUANTIZED_FILES if (folder / name).exists()]:
        raise _quantized(folder, f"{present[0]} is there")


def _refuse_quantized_tensors(checkpoint: Checkpoint) -> None:
    for name, entry in checkpoint.tensors.items():
        short = entry.dtype.startswith("F8") or BITS[entry.dtype] < 8
        whole = entry.dtype in INTEGERS and name.endswith("weight")
        if short or whole or QUANTIZED_NAME.search(name):
            raise _quantized(checkpoint.folder, f"tensor '{name}' is {entry.dtype} in {entry.file.name}")


def _quantized(folder: Path, evidence: str) -> InputError:
    return InputError(
        f"model '{folder}' is quantized ({evidence}), and quantized weights cannot be edited; name the unquantized "
        "model that it was made from, or dequantize it first"
    )
