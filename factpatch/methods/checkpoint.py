"""A run's state on disk, so that a killed one continues: written whole or not at all, and never taken for another's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from factpatch.errors import InputError, RefusedError
from factpatch.files import digest_value, new_file, remove_litter
from factpatch.models.loading import tensor_digest

CHECKPOINT_FILE = "checkpoint.safetensors"
CHECKPOINT_VERSION = "3"  # of the file; another number is never read
SAVE_TIME_FACTOR = 20  # of the time that a save takes, the least that goes by before the next


@dataclass(frozen=True)
class CheckpointPolicy:
    """Where a run saves its state, at most how often, and what the state belongs to; `resume` continues from it."""

    path: Path
    identity: dict[str, str]
    resume: bool
    seconds: float

    @property
    def resumes(self) -> bool:
        """Is there a state to continue from, and is that wanted?"""
        return self.resume and self.path.exists()


def wait(seconds: float, took: float) -> float:
    """Seconds until the next save, after one that took so many: those asked for, or more, so that saving large tensors
    to a slow disk takes but a small share of a run. Where none are asked for, none are waited."""
    return max(seconds, SAVE_TIME_FACTOR * took) if seconds else 0.0


def save_checkpoint(
    path: Path, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any], identity: Mapping[str, str]
) -> None:
    """Replace the checkpoint. `identity` names what the state belongs to: each value a digest, each key in words."""
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    about = {"form": CHECKPOINT_VERSION, "numbers": json.dumps(dict(numbers)), "identity": json.dumps(dict(identity))}
    about["sha256"] = _content(kept, about)
    try:
        with new_file(path) as temporary:
            save_file(kept, temporary, about)
    except (OSError, SafetensorError) as error:
        raise RefusedError(f"checkpoint '{path}' cannot be written ({error}); make room and use --resume") from error


def load_checkpoint(path: Path, identity: Mapping[str, str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and numbers of a checkpoint; InputError if it is broken or belongs to another run."""
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
        if about.get("form") != CHECKPOINT_VERSION:
            raise InputError(
                f"checkpoint '{path}' was written by another version of factpatch; run without --resume to start anew"
            )
        tensors = load_file(path)
        if _content(tensors, about) != about["sha256"]:
            raise ValueError("its content is not what was written")
        numbers, owner = json.loads(about["numbers"]), json.loads(about["identity"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"checkpoint '{path}' is broken ({reason}); run without --resume to start anew") from error
    changed = [what for what, digest in identity.items() if owner.get(what) != digest]
    if changed:
        raise InputError(
            f"checkpoint '{path}' was made with other {' and '.join(changed)}; run without --resume to start anew"
        )
    return tensors, numbers


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint, and what a kill in the middle of a write left of one."""
    path.unlink(missing_ok=True)
    remove_litter(path.parent, path.name)


def _content(tensors: Mapping[str, torch.Tensor], about: Mapping[str, str]) -> str:
    digests = {name: tensor_digest(tensor) for name, tensor in tensors.items()}
    return digest_value([digests, about["numbers"], about["identity"]])
