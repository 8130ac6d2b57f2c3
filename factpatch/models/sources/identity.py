"""Names a base model by its files or its revision, without loading its weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import huggingface_hub

from factpatch.addresses import HUB_TIMEOUT
from factpatch.files import digest_file, digest_value
from factpatch.models.sources.kinds import adapter_base, is_adapter

MODEL_FILE_ENDINGS = {
    ".json",
    ".safetensors",
    ".txt",
    ".model",
    ".jinja",
    ".py",
}  # files of a model's folder that make the model
WHOLLY_READ_BYTES = 2**26  # bytes; larger files are looked at in samples
SAMPLE_PLACES, SAMPLE_BYTES = 1024, 4096  # places spread over such a file, and bytes read at each


def model_identity(source: str) -> str | None:
    """Names a base model: by its GGUF file, by the files of its folder (of an adapter's, with its base), or by the
    revision of a hub name; None where none can be had.

    Large weight files are told apart by their size, their header and samples spread over them, which another training
    changes; a change so small that it lies between two samples is found only by the fingerprint of a release.
    """
    folder = Path(source)
    if folder.is_file():
        return _digest_large(folder)
    if folder.is_dir():
        files = sorted(path for path in folder.iterdir() if path.suffix in MODEL_FILE_ENDINGS and path.is_file())
        parts: dict[str, str | None] = {path.name: _digest_large(path) for path in files}
        return digest_value(parts | {"base": model_identity(adapter_base(folder))} if is_adapter(folder) else parts)
    try:
        return str(huggingface_hub.HfApi().model_info(source, timeout=HUB_TIMEOUT).sha)
    except Exception:  # whatever the network or the hub raises: what was downloaded before still serves
        return _downloaded_revision(source)


def _downloaded_revision(source: str) -> str | None:
    try:
        path = huggingface_hub.try_to_load_from_cache(source, "config.json")
    except ValueError:  # no name of the hub's
        return None
    return Path(path).parent.name if isinstance(path, str) else None


def _digest_large(path: Path) -> str:
    size = path.stat().st_size
    if size <= WHOLLY_READ_BYTES:
        return digest_file(path)
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little") if path.suffix == ".safetensors" else 0
        digest.update(file.read(min(header, WHOLLY_READ_BYTES)))
        for number in range(SAMPLE_PLACES):
            file.seek(number * (size - SAMPLE_BYTES) // (SAMPLE_PLACES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()
