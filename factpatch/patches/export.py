"""Model folders with a patch's new values or its old ones: copied file by file, without loading a model."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from factpatch.files import new_folder
from factpatch.models.checkpoints.copying import copy_checkpoint
from factpatch.models.checkpoints.folder import read_checkpoint
from factpatch.models.loading import find_source, open_checkpoint
from factpatch.patches.patch import BASE, EDITED, Patch, check_files, read_patch
from factpatch.settings.config import ModelSettings

log = logging.getLogger(__name__)


def export_patch(settings: ModelSettings, folder: str | Path, output: Path, link: bool = False) -> Path:
    """Copy the base model's folder with the patch's new values in place of the old: every other byte is the base's.

    With `link`, weight files that hold no new value are hard links to the base's, where the disk allows: nobody may
    write into them.
    """
    patch = read_patch(folder)
    return _export(settings, patch, output, (patch.before, BASE), (patch.after, patch.new), link)


def export_undo(settings: ModelSettings, folder: str | Path, output: Path) -> Path:
    """Copy an edited model's folder with the old values put back: its weights are then the base's, byte for byte."""
    patch = read_patch(folder)
    return _export(settings, patch, output, (patch.after, EDITED), (patch.before, patch.old))


def _export(
    settings: ModelSettings,
    patch: Patch,
    output: Path,
    source: tuple[dict[str, str], str],
    result: tuple[dict[str, str], dict[str, torch.Tensor]],
    link: bool = False,
) -> Path:
    """Copy the folder whose tensors have the digests in `source`, to one whose tensors have those in `result`.

    No model is loaded. The located tensors are checked first; the rest in the copy, which is hashed as it was written
    and kept only if every tensor is the expected one.
    """
    (present, what), (expected, values) = source, result
    checkpoint = open_checkpoint(find_source(settings.path))
    check_files(checkpoint, patch, present, what, patch.located)
    with new_folder(output) as temporary:
        left = copy_checkpoint(checkpoint, temporary, values, link)
        check_files(read_checkpoint(temporary), patch, expected, what)
    if left:
        log.warning("left out of '%s', as they hold the same weights in other forms: %s", output, ", ".join(left))
    return output
