"""The base model in memory: loaded once for all steps that one process runs, where memory allows, and owned here."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from factpatch.errors import RefusedError
from factpatch.models.checkpoints.tensors import file_state
from factpatch.models.loading import LoadedModel, find_source, load_model, open_checkpoint
from factpatch.models.placement import stream_of
from factpatch.preflight.machine import available
from factpatch.settings.config import AUTO, ModelSettings

ROOM = 2  # times the model's size that must be free for another one beside it, with what that computes

Result = TypeVar("Result")


@dataclass(frozen=True)
class ModelKey:
    """What tells one loaded model from another: how it is loaded (dtype, device), and the files it is loaded from."""

    settings: ModelSettings
    files: tuple[tuple[Path, tuple[int, ...]], ...]


@dataclass
class _Shared:
    """The one model that is kept between steps, while a flow is open that shares it."""

    flows: int = 0
    key: ModelKey | None = None
    loaded: LoadedModel | None = None


_shared = _Shared()


@contextmanager
def share_base_model() -> Iterator[None]:
    """Steps that run inside the block share the model; when the outermost block ends, it is let go."""
    _shared.flows += 1
    try:
        yield
    finally:
        _shared.flows -= 1
        if not _shared.flows:
            release_base_model()


@contextmanager
def base_model(settings: ModelSettings) -> Iterator[LoadedModel]:
    """The model that the settings name, for one step; loaded unless an earlier step of the same flow did.

    The next step gets the same one, so whoever writes into it puts back what was there. One that fails is not trusted
    to have done so.
    """
    if not _shared.flows:
        yield load_model(settings)
        return
    key = _key(settings)
    if _shared.loaded is None or _shared.key != key or not _lies_as_asked(_shared.loaded, settings):
        release_base_model()  # before another is loaded: never two at once
        _shared.key, _shared.loaded = key, load_model(settings)
    try:
        yield _shared.loaded
    except BaseException:
        release_base_model()
        raise


def release_base_model() -> None:
    """Let go of the shared model, if there is one."""
    if _shared.loaded is None:
        return
    _shared.key = _shared.loaded = None
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()  # what torch keeps for itself counts as taken


def within_memory(check: Callable[[], Result]) -> Result:
    """What a check of free memory gives; where it refuses, once more without the shared model."""
    try:
        return check()
    except RefusedError:
        if _shared.loaded is None:
            raise
        release_base_model()
        return check()


def make_room(folder: Path) -> None:
    """Let go of the shared model unless another of its size can be loaded beside it. `folder` is the output folder."""
    if _shared.key is None or _shared.loaded is None:
        return
    free = available(_shared.key.settings.device, folder, None)
    weights = sum(parameter.nbytes for parameter in _shared.loaded.model.parameters() if not parameter.is_meta)
    if (free.memory if free.accelerator is None else free.accelerator) < ROOM * weights:
        release_base_model()


def _lies_as_asked(loaded: LoadedModel, settings: ModelSettings) -> bool:
    """Whether a model's weights lie where the settings say; with `auto` they may lie anywhere."""
    return settings.placement in (AUTO, "stream" if stream_of(loaded.model) else "memory")


def _key(settings: ModelSettings) -> ModelKey:
    source = find_source(settings.path)
    folder = open_checkpoint(source).folder.resolve()
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return ModelKey(replace(settings, path=source, placement=AUTO), tuple((path, file_state(path)) for path in files))
