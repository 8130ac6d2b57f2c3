"""The patch: what an edit run leaves behind. New values, old values, and a manifest that knows its base model.

All three speak of the base model's files: tensors by the names and in the types that they have there.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from factpatch.errors import InputError, RefusedError
from factpatch.files import digest_file, digest_value, new_folder, read_json, write_json
from factpatch.models.borrowing import refuse_foreign, source_of, stored_in_files
from factpatch.models.checkpoints.folder import Checkpoint
from factpatch.models.checkpoints.mapping import StoredParameters, map_in_memory
from factpatch.models.checkpoints.tensors import entry_digest, file_digests, read_tensor, same_bits, tensor_digest
from factpatch.models.loading import LoadedModel, fingerprint, write_values
from factpatch.models.locations import Location
from factpatch.models.low_rank import Factors
from factpatch.patches.factors import exact_factors, packed, unpacked
from factpatch.settings.config import Settings
from factpatch.settings.shown import shown_settings

PATCH_SCHEMA = 2
NEW_FILE, OLD_FILE = "patch.safetensors", "undo.safetensors"
BASE, EDITED = "the base model of the patch", "the model that the patch made"
RECORDED_LIBRARIES = ("factpatch", "torch", "transformers", "safetensors")


@dataclass(frozen=True, repr=False)
class Patch:
    """New and old values of a few tensors, by their names in the base model's files, and what is known of that model.

    `folder` is where it was read from or saved to; None while it lies in memory alone. `factors` are those of tensors
    whose new values are the old ones with a low-rank difference; the file holds them in place of the values.
    """

    folder: Path | None
    new: dict[str, torch.Tensor]
    old: dict[str, torch.Tensor]
    manifest: dict[str, Any]
    factors: dict[str, Factors] = field(default_factory=dict)

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

    def save(self, folder: str | Path) -> Patch:
        """Write `patch.safetensors`, `undo.safetensors` and `manifest.json` into a folder, all or none of them.

        A patch that is there is replaced. Returns the patch with its folder.
        """
        folder = Path(folder)
        with new_folder(folder, replace=True) as temporary:
            save_file(packed(self.new, self.factors), temporary / NEW_FILE)
            save_file(self.old, temporary / OLD_FILE)
            files = {name: digest_file(temporary / name) for name in (NEW_FILE, OLD_FILE)}
            manifest = self.manifest | {"files": files}
            write_json(temporary / "manifest.json", manifest)
        return replace(self, folder=folder, manifest=manifest)

    def apply(self, model: PreTrainedModel) -> None:
        """Write the new values into the base model, in place.

        Raises InputError, with the names of the tensors that differ, for any model but the one that was edited.
        """
        write_values(model, _values(self, _stored_as(self, model), edited=False))

    def undo(self, model: PreTrainedModel) -> None:
        """Put the old values back into a model that the patch was applied to: it is then the base model, byte for byte.

        Raises InputError, with the names of the tensors that differ, for any other model.
        """
        write_values(model, _values(self, _stored_as(self, model), edited=True))

    def __repr__(self) -> str:
        size = sum(value.nbytes for value in self.new.values()) / 2**20
        place, edits = self.manifest["location"]["name"], self.manifest["edits"].get("count", "unknown")
        return f"Patch({edits} edits at {place} of {self.manifest['base']['source']}, {size:.1f} MiB, {_named(self)})"


def make_patch(
    loaded: LoadedModel,
    location: Location,
    values: Mapping[str, torch.Tensor],
    settings: Settings,
    edits: dict[str, Any],
    training: dict[str, Any],
    factors: Mapping[str, Factors] | None = None,
) -> Patch:
    """A patch in memory.

    `values` are those of the located parameters, rounded to what the files can hold (`StoredParameters.rounded`).
    `edits` is a summary of the edit set (digest, count), `training` of the run; `factors` are those of a low-rank run
    (`TrainingResult.factors`), kept where they give the values bit for bit. Raises RefusedError for values that
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
        "edits": edits,
        "config": shown_settings(settings),
        "config_digest": digest_value(shown_settings(settings)),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in RECORDED_LIBRARIES},
        "training": training,
    }
    return Patch(None, new, old, manifest, exact_factors(new, old, factors or {}))


def save_patch(
    folder: Path,
    loaded: LoadedModel,
    location: Location,
    values: Mapping[str, torch.Tensor],
    settings: Settings,
    edits: dict[str, Any],
    training: dict[str, Any],
    factors: Mapping[str, Factors] | None = None,
) -> Path:
    """Make a patch, as `make_patch` does, and write it into a folder, whole or not at all; the folder."""
    make_patch(loaded, location, values, settings, edits, training, factors).save(folder)
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
    for name in (NEW_FILE, OLD_FILE):
        try:
            if digest_file(folder / name) != manifest["files"][name]:
                raise InputError(f"patch '{folder}': {name} is not the file that its manifest describes")
            tensors.append(load_file(folder / name))
        except (OSError, SafetensorError) as error:
            raise InputError(f"patch '{folder}': {name} cannot be read ({error})") from error
        except (KeyError, TypeError) as error:
            raise InputError(f"patch '{folder}': its manifest does not name {name}; edit again") from error
    new, factors = unpacked(tensors[0], tensors[1])
    if differing := [name for name in factors if tensor_digest(new[name]) != _after(manifest, name)]:
        raise InputError(f"patch '{folder}': the factors of {_some(differing)} do not give what its manifest describes")
    return Patch(folder, new, tensors[1], manifest, factors)


def _after(manifest: Mapping[str, Any], name: str) -> str | None:
    """The digest that the manifest has of a tensor's new value."""
    return manifest.get("parameters", {}).get(name, {}).get("sha256_after")


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
    write_values(loaded.model, new_values(loaded, patch))
    return patch


def new_values(loaded: LoadedModel, patch: Patch) -> dict[str, torch.Tensor]:
    """The patch's new values by parameter, to be written into its base model; InputError as in `apply_patch`."""
    return _values(patch, loaded.stored, edited=False)


def _stored_as(patch: Patch, model: PreTrainedModel) -> StoredParameters:
    """The model by the files that it came from, if these are the patch's base; else by what lies in memory."""
    refuse_foreign(model)
    files = stored_in_files(model)
    if files is not None and file_digests(files.checkpoint) == patch.before:
        return files
    return map_in_memory(model, source_of(model))


def _values(patch: Patch, stored: StoredParameters, edited: bool) -> dict[str, torch.Tensor]:
    """The new values for the base model, or the old ones for the `edited` one; InputError for any other model."""
    what, values = (EDITED, patch.old) if edited else (BASE, patch.new)
    check_files(stored.checkpoint, patch, patch.after if edited and stored.checkpoint.in_memory else patch.before, what)
    if differing := stored.differing(changed=patch.new if edited else None):
        raise _other_model(what, differing, patch)
    return stored.from_files(values)


def check_files(
    checkpoint: Checkpoint, patch: Patch, expected: dict[str, str], what: str, only: Collection[str] | None = None
) -> None:
    """InputError if the files name other tensors than expected, or those of `only` (None: all) have other digests."""
    if lacking := sorted(expected.keys() - checkpoint.tensors.keys()):
        raise InputError(f"this is not {what}: its files lack {_some(lacking)}, which {_named(patch)} knows")
    differing = sorted(checkpoint.tensors.keys() - expected.keys())
    if not differing:
        actual = file_digests(checkpoint) if only is None else {n: entry_digest(checkpoint.tensors[n]) for n in only}
        differing = sorted(name for name, digest in actual.items() if digest != expected[name])
    if differing:
        raise _other_model(what, differing, patch)


def _other_model(what: str, differing: Sequence[str], patch: Patch) -> InputError:
    return InputError(f"this is not {what}: {_some(differing)} differ from {_named(patch)}")


def _some(names: Sequence[str]) -> str:
    """The first few."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _named(patch: Patch) -> str:
    return "the patch in memory" if patch.folder is None else f"'{patch.folder}'"
