"""The patch: what an edit run leaves behind. New values, old values, and a manifest that knows its base model."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from factpatch.config import ModelSettings, Settings
from factpatch.errors import InputError, RefusedError
from factpatch.files import digest_file, digest_value, new_folder, read_json, write_json
from factpatch.models import (
    LoadedModel,
    fingerprint,
    known_digests,
    load_model,
    tensor_digest,
    tensor_digests,
    write_values,
)
from factpatch.stores import shown_settings
from factpatch.structure import Location

SCHEMA = 1
LIBRARIES = ("factpatch", "torch", "transformers", "safetensors")


@dataclass(frozen=True)
class Patch:
    """A patch read from its folder: tensors by parameter name, and the manifest."""

    folder: Path
    new: dict[str, torch.Tensor]
    old: dict[str, torch.Tensor]
    manifest: dict[str, Any]


def save_patch(
    folder: Path,
    loaded: LoadedModel,
    location: Location,
    values: dict[str, torch.Tensor],
    settings: Settings,
    edits: dict[str, Any],
    training: dict[str, Any],
) -> Path:
    """Write a patch folder, whole or not at all. The model must still hold the base weights.

    `edits` is a summary of the edit set (digest, count), `training` of the run. Raises RefusedError for values that
    are not finite.
    """
    broken = [name for name, value in values.items() if not torch.isfinite(value).all()]
    if broken:
        raise RefusedError(f"new values of {', '.join(broken)} are not finite; no patch was written")
    digests = known_digests(loaded.model)  # whether they are the model's, the certificate proves
    old = {name: loaded.model.get_parameter(name).detach().cpu().clone() for name in values}
    new = {name: value.cpu().contiguous() for name, value in values.items()}
    with new_folder(folder, replace=True) as temporary:
        save_file(new, temporary / "patch.safetensors")
        save_file(old, temporary / "undo.safetensors")
        manifest = {
            "schema": SCHEMA,
            "base": {
                "source": settings.model.path,
                "fingerprint": fingerprint(digests),
                "dtype": str(loaded.model.dtype).removeprefix("torch."),
                "tensors": digests,
            },
            "location": {"name": location.name, "layer": location.layer, "module": location.module},
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
            "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
            "training": training,
        }
        write_json(temporary / "manifest.json", manifest)
    return folder


def read_patch(folder: str | Path) -> Patch:
    """Read a patch and check that its files are those that its manifest describes."""
    folder = Path(folder)
    if not (folder / "manifest.json").exists():
        raise InputError(f"'{folder}' is not a patch folder: it has no manifest.json")
    manifest = read_json(folder / "manifest.json")
    if manifest.get("schema") != SCHEMA:
        raise InputError(f"patch '{folder}' has schema {manifest.get('schema')!r}; this version reads {SCHEMA}")
    tensors = []
    for name in ("patch.safetensors", "undo.safetensors"):
        try:
            if digest_file(folder / name) != manifest["files"][name]:
                raise InputError(f"patch '{folder}': {name} is not the file that its manifest describes")
            tensors.append(load_file(folder / name))
        except (OSError, SafetensorError) as error:
            raise InputError(f"patch '{folder}': {name} cannot be read ({error})") from error
    return Patch(folder, tensors[0], tensors[1], manifest)


def apply_patch(model: PreTrainedModel, folder: str | Path) -> Patch:
    """Write the patch's new values into its base model, in place; InputError names what differs on any other model."""
    patch = read_patch(folder)
    _check_tensors(model, patch, dict(patch.manifest["base"]["tensors"]), "the base model of the patch")
    write_values(model, patch.new)
    return patch


def undo_patch(model: PreTrainedModel, folder: str | Path) -> Patch:
    """Write the old values back into a model that carries the patch, in place and bit for bit."""
    patch = read_patch(folder)
    edited = {name: entry["sha256_after"] for name, entry in patch.manifest["parameters"].items()}
    _check_tensors(model, patch, {**patch.manifest["base"]["tensors"], **edited}, "the model that the patch made")
    write_values(model, patch.old)
    return patch


def export_patch(settings: ModelSettings, folder: str | Path, output: Path) -> Path:
    """Save the base model with the patch applied as an ordinary Hugging Face folder."""
    return _export(settings, folder, output, apply_patch)


def export_undo(settings: ModelSettings, folder: str | Path, output: Path) -> Path:
    """Save an edited model with the patch undone as an ordinary Hugging Face folder."""
    return _export(settings, folder, output, undo_patch)


def _export(
    settings: ModelSettings, folder: str | Path, output: Path, change: Callable[[PreTrainedModel, str | Path], Patch]
) -> Path:
    read_patch(folder)  # a broken patch is told before a model is loaded
    loaded = load_model(settings)
    change(loaded.model, folder)
    with new_folder(output) as temporary:
        nn.Module.to(loaded.model, loaded.stored_dtype)
        loaded.model.save_pretrained(temporary)
        loaded.tokenizer.save_pretrained(temporary)
    return output


def _check_tensors(model: PreTrainedModel, patch: Patch, expected: dict[str, str], what: str) -> None:
    """InputError if the model's tensors are not the expected ones, by name of the first few that differ."""
    actual = tensor_digests(model)
    differing = sorted(name for name in {*actual, *expected} if actual.get(name) != expected.get(name))
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        dtype = str(model.dtype).removeprefix("torch.")
        hint = (
            f"; it was made in {patch.manifest['base']['dtype']} and the model is loaded in {dtype}"
            if dtype != patch.manifest["base"]["dtype"]
            else ""
        )
        raise InputError(f"this is not {what}: {', '.join(differing[:3])}{more} differ from '{patch.folder}'{hint}")
