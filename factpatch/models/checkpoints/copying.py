"""A copy of a model folder that differs in some tensors alone: every other byte of every file is the original's."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path

import torch

from factpatch.errors import InputError
from factpatch.models.checkpoints.folder import Checkpoint
from factpatch.models.checkpoints.headers import read_header

# The same weights in other forms, as hubs hold them beside safetensors; a copy would go on holding the old values.
OTHER_FORMS = (
    "*pytorch_model*", "tf_model*", "flax_model*", "rust_model*", "consolidated*", "model.ckpt*",
    "*.gguf", "*.onnx", "*.onnx_data", "*.h5", "*.msgpack",
)  # fmt: skip


def copy_checkpoint(
    checkpoint: Checkpoint, output: Path, tensors: Mapping[str, torch.Tensor], link: bool = False
) -> list[str]:
    """Copy a model folder into an empty one, with these tensors in place of its own, each of the type and shape that it
    has there; files keep their names, and an index stays as it is.

    Files with the same weights in another form are left out, and so are hidden folders; what was left out is returned.
    With `link`, weight files that hold none of the tensors are hard links where the disk allows.
    """
    changed = {checkpoint.tensors[name].file for name in tensors}
    linked = {path for path in checkpoint.files if link and path not in changed and _may_link(path, output)}
    needed = sum(path.stat().st_size for path in checkpoint.files if path not in linked)
    free = shutil.disk_usage(output).free
    if needed > free:
        raise InputError(
            f"a copy of '{checkpoint.folder}' takes {needed / 2**30:.1f} GB, and {free / 2**30:.1f} GB are free in "
            f"'{output.parent}'; make room, or name another --output"
        )
    left = []
    for path in _files(checkpoint.folder, output):
        relative = path.relative_to(checkpoint.folder)
        if path not in checkpoint.files and _other_form(path, checkpoint):
            left.append(str(relative))
            continue
        (output / relative).parent.mkdir(parents=True, exist_ok=True)
        if path in linked:
            os.link(path.resolve(), output / relative)
        else:
            shutil.copyfile(path, output / relative)
    for name, value in tensors.items():
        _overwrite(checkpoint, output, name, value)
    return sorted(left)


def _may_link(path: Path, output: Path) -> bool:
    """Whether a file can be linked into a folder: tried, as disks and rights differ."""
    trial = output / f".{path.name}.link"
    try:
        os.link(path.resolve(), trial)
    except OSError:
        return False
    trial.unlink()
    return True


def _files(folder: Path, output: Path) -> Iterator[Path]:
    """Every file of a folder but those in hidden folders (`.git`, `.cache`); symbolic links count as what they name."""
    if output.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"the output would lie inside the model folder '{folder}'; name another --output")
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in files)


def _other_form(path: Path, checkpoint: Checkpoint) -> bool:
    """Whether a file beside the loaded ones holds weights of the same model."""
    if any(fnmatch(path.name, pattern) for pattern in OTHER_FORMS):
        return True
    if path.suffix != ".safetensors":
        return False
    try:
        return not checkpoint.tensors.keys().isdisjoint(read_header(path))
    except InputError:  # no safetensors file after all
        return False


def _overwrite(checkpoint: Checkpoint, output: Path, name: str, value: torch.Tensor) -> None:
    """Put a tensor's bytes where the copy has those of its name."""
    entry = checkpoint.tensors[name]
    content = value.contiguous().view(-1).view(torch.uint8).numpy().data
    assert len(content) == entry.end - entry.start
    with (output / entry.file.relative_to(checkpoint.folder)).open("r+b") as file:
        file.seek(entry.start)
        file.write(content)
