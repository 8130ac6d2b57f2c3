"""The patch: what an edit run leaves behind. New values, old values, and a manifest that knows its base model.

All three speak of the base model's files: tensors by the names and in the types that they have there.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from factpatch.errors import InputError, RefusedError
from factpatch.files import digest_file, digest_value, new_folder, read_json, write_json
from factpatch.models.checkpoints.copying import copy_checkpoint
from factpatch.models.checkpoints.folder import Checkpoint, read_checkpoint
from factpatch.models.checkpoints.tensors import entry_digest, file_digests, read_tensor, same_bits, tensor_digest
from factpatch.models.loading import LoadedModel, find_source, fingerprint, open_checkpoint, write_values
from factpatch.models.locations import Location
from factpatch.settings.config import ModelSettings, Settings
from factpatch.settings.shown import shown_settings

log = logging.getLogger(__name__)

PATCH_SCHEMA = 2
BASE, EDITED = "the base model of the patch", "the model that the patch made"
RECORDED_LIBRARIES = ("factpatch", "torch", "transformers", "safetensors")


@dataclass(frozen=True)
class Patch:
    """A patch read from its folder: tensors by their names in the base model's files, and the manifest."""

    folder: Path
    new: dict[str, torch.Tensor]
    old: dict[str, torch.Tensor]
    manifest: dict[str, Any]

    @property
    def located(self) -> dict[str, Any]:
        """What the manifest says of each tensor that the patch changes."""
        return dict(self.manifest["parameters"])

    @property
    def before(self) -> dict[str, str]:
        """The digest of every tensor in the base model's files."""
        return dict(self.manifest["base"]["tensors"])

    @property
    def after(self) -> dict[str, str]:
        """The same with the patch applied."""
        return self.before | {name: entry["sha256_after"] for name, entry in self.located.items()}


def save_patch(
    folder: Path,
    loaded: LoadedModel,
    location: Location,
    values: dict[str, torch.Tensor],
    settings: Settings,
    edits: dict[str, Any],
    training: dict[str, Any],
) -> Path:
    """Write a patch folder, whole or not at all.

    `values` are those of the located parameters, rounded to what the files can hold (`StoredParameters.rounded`).
    `edits` is a summary of the edit set (digest, count), `training` of the run. Raises RefusedError for values that
    are not finite, or that the files cannot hold.
    """
    stored = loaded.stored
    broken = [name for name, value in values.items() if not torch.isfinite(value).all()]
    if broken:
        raise RefusedError(f"new values of {', '.join(broken)} are not finite; no patch was written")
    new = stored.to_files(values)
    held = stored.from_files(new)
    if lost := [name for name, value in values.items() if not same_bits(held[name], value)]:
        raise RefusedError(
            f"the files of '{loaded.source}' cannot hold the new values of {', '.join(lost)}; no patch was written"
        )
    digests = file_digests(stored.checkpoint)  # whether the model was loaded from them, the certificate proves
    old = {name: read_tensor(stored.checkpoint.tensors[name]) for name in new}
    with new_folder(folder, replace=True) as temporary:
        save_file(new, temporary / "patch.safetensors")
        save_file(old, temporary / "undo.safetensors")
        manifest = {
            "schema": PATCH_SCHEMA,
            "base": {
                "source": settings.model.path,
                "fingerprint": fingerprint(digests),
                "dtype": str(loaded.model.dtype).removeprefix("torch."),
                "tensors": digests,
                "buffers": buffer_digests(loaded),
            },
            "location": {**location.to_json(), "parameters": list(location.parameters)},
            "parameters": {
                name: {
                    "shape": list(value.shape),
                    "dtype": str(value.dtype).removeprefix("torch."),
                    "sha256_before": digests[name],
                    "sha256_after": tensor_digest(value),
                }
                for name, value in new.items()
            },
            "files": {name: digest_file(temporary / name) for name in ("patch.safetensors", "undo.safetensors")},
            "edits": edits,
            "config": shown_settings(settings),
            "config_digest": digest_value(shown_settings(settings)),
            "versions": {"python": platform.python_version()} | {name: version(name) for name in RECORDED_LIBRARIES},
            "training": training,
        }
        write_json(temporary / "manifest.json", manifest)
    return folder


def buffer_digests(loaded: LoadedModel) -> dict[str, str]:
    """The digest of each buffer in memory that is in no file, since the class computes it."""
    named = loaded.model.named_buffers(remove_duplicate=False)
    return {name: tensor_digest(buffer) for name, buffer in named if name not in loaded.stored.groups}


def read_patch(folder: str | Path) -> Patch:
    """Read a patch and check that its files are those that its manifest describes."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest.get("schema") != PATCH_SCHEMA:
        raise InputError(f"patch '{folder}': {foreign_schema(manifest)}; edit again to get one that can be used")
    tensors = []
    for name in ("patch.safetensors", "undo.safetensors"):
        try:
            if digest_file(folder / name) != manifest["files"][name]:
                raise InputError(f"patch '{folder}': {name} is not the file that its manifest describes")
            tensors.append(load_file(folder / name))
        except (OSError, SafetensorError) as error:
            raise InputError(f"patch '{folder}': {name} cannot be read ({error})") from error
        except (KeyError, TypeError) as error:
            raise InputError(f"patch '{folder}': its manifest does not name {name}; edit again") from error
    return Patch(folder, tensors[0], tensors[1], manifest)


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a patch folder, of whatever schema; InputError if there is none."""
    path = Path(folder) / "manifest.json"
    if not path.exists():
        raise InputError(f"'{folder}' is not a patch folder: it has no manifest.json")
    manifest = read_json(path)
    if not isinstance(manifest, dict):
        raise InputError(f"'{path}' is no JSON object; edit again")
    return manifest


def foreign_schema(manifest: dict[str, Any]) -> str | None:
    """Why a patch is of another version than this one reads, in words; None if it is not."""
    schema = manifest.get("schema")
    if schema == PATCH_SCHEMA:
        return None
    older = " (it describes tensors in memory instead of files)" if schema == 1 else ""
    return f"its manifest has schema {schema!r}{older}, and this version reads {PATCH_SCHEMA}"


def apply_patch(loaded: LoadedModel, folder: str | Path) -> Patch:
    """Write the patch's new values into its base model in memory; InputError names what differs on any other model."""
    patch = read_patch(folder)
    _check_files(loaded.stored.checkpoint, patch, patch.before, BASE)
    if differing := loaded.stored.differing():
        raise _other_model(BASE, differing, patch)
    write_values(loaded.model, loaded.stored.from_files(patch.new))
    return patch


def export_patch(settings: ModelSettings, folder: str | Path, output: Path) -> Path:
    """Copy the base model's folder with the patch's new values in place of the old: every other byte is the base's."""
    patch = read_patch(folder)
    return _export(settings, patch, output, (patch.before, BASE), (patch.after, patch.new))


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
) -> Path:
    """Copy the folder whose tensors have the digests in `source`, to one whose tensors have those in `result`.

    No model is loaded. The located tensors are checked first; the rest in the copy, which is hashed as it was written
    and kept only if every tensor is the expected one.
    """
    (present, what), (expected, values) = source, result
    checkpoint = open_checkpoint(find_source(settings.path))
    _check_files(checkpoint, patch, present, what, patch.located)
    with new_folder(output) as temporary:
        left = copy_checkpoint(checkpoint, temporary, values)
        _check_files(read_checkpoint(temporary), patch, expected, what)
    if left:
        log.warning("left out of '%s', as they hold the same weights in other forms: %s", output, ", ".join(left))
    return output


def _check_files(
    checkpoint: Checkpoint, patch: Patch, expected: dict[str, str], what: str, only: Collection[str] | None = None
) -> None:
    """InputError if the files name other tensors than expected, or those of `only` (None: all) have other digests."""
    if lacking := sorted(expected.keys() - checkpoint.tensors.keys()):
        raise InputError(f"this is not {what}: its files lack {_some(lacking)}, which '{patch.folder}' knows")
    differing = sorted(checkpoint.tensors.keys() - expected.keys())
    if not differing:
        actual = file_digests(checkpoint) if only is None else {n: entry_digest(checkpoint.tensors[n]) for n in only}
        differing = sorted(name for name, digest in actual.items() if digest != expected[name])
    if differing:
        raise _other_model(what, differing, patch)


def _other_model(what: str, differing: Sequence[str], patch: Patch) -> InputError:
    return InputError(f"this is not {what}: {_some(differing)} differ from '{patch.folder}'")


def _some(names: Sequence[str]) -> str:
    """The first few."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
