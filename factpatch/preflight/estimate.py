"""Before an edit run: what it will take, what the machine has, and a refusal if the one does not fit the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from factpatch.edits.request import EditRequest
from factpatch.errors import InputError, RefusedError
from factpatch.files import GIB
from factpatch.methods.base import settings_of
from factpatch.methods.lookup import find_method, refuse_unfit
from factpatch.models.locations import locate
from factpatch.models.meta import meta_model, stored_type
from factpatch.preflight.durations import MachineSpeed, epoch_products, forward_products
from factpatch.preflight.expected_rows import expected_rows
from factpatch.preflight.machine import Available, check_device, process_memory
from factpatch.preflight.rates import DeviceRates, measured_rates
from factpatch.preflight.streaming import StreamedWeights, answer_passes
from factpatch.preflight.workload import (
    check_bytes,
    kept_positions,
    pass_bytes,
    shape_of,
    trunk_positions,
    whole_passes,
)
from factpatch.settings.config import ModelSettings, Settings, TrunkSettings
from factpatch.training_data.rows import without_unused_rows

LIBRARY_BYTES = 70 * 2**20  # bytes of code and buffers that the run itself brings into memory
HASHED = 2  # times that all weights are hashed: in memory for all names that they give, in the files for the manifest
HASH_RATE = 1e9  # bytes a second
PROMPTS_AT_ONCE = 1024  # that go through a streamed model in lock-step, about


@dataclass(frozen=True)
class Estimate:
    """What an edit run takes in memory, disk and time, estimated before it begins.

    Attributes:
        location: where it writes.
        parameters, model_parameters: those trained, and all.
        weights_bytes: of the model.
        state_bytes: masters of the located tensors, their optimizer, gradients and copies.
        pass_bytes, pass_rows: activations and logits of the largest pass, and its rows.
        memory_bytes: most that is held at once where the model runs; on the CPU with all that the process holds.
        host_bytes: most that is held in the machine's memory.
        process_bytes: what of it the process holds already.
        patch_bytes, checkpoint_bytes, trunk_bytes, moments_bytes: on disk.
        seconds_trunk: the frozen layers, once.
        seconds_epoch: an epoch that visits every edit.
        seconds_rest: hashing the weights, and passes through the whole model before and after training.
        epochs: at most.
        operations: multiplications and additions of the whole run, if it needs all of its epochs.
        placement: of the weights, `memory` or `stream`.
        hidden_bytes: hidden states of a streamed model on disk, while its trunk is computed.
        read_bytes: read from the weights' files.
    """

    location: str
    parameters: int
    model_parameters: int
    weights_bytes: int
    state_bytes: int
    pass_bytes: int
    pass_rows: int
    memory_bytes: int
    host_bytes: int
    process_bytes: int
    patch_bytes: int
    checkpoint_bytes: int
    trunk_bytes: int
    moments_bytes: int
    seconds_trunk: float
    seconds_epoch: float
    seconds_rest: float
    epochs: int
    operations: int = 0
    placement: str = "memory"
    hidden_bytes: int = 0
    read_bytes: int = 0

    @property
    def disk_bytes(self) -> int:
        """Patch, checkpoint (the last one stays until the next is whole) and what the trunk's folder holds."""
        return self.patch_bytes + 2 * self.checkpoint_bytes + self.cache_bytes

    @property
    def cache_bytes(self) -> int:
        """In the trunk's folder: what it keeps, hidden states on the way there, and what whitening is made of."""
        return self.trunk_bytes + self.hidden_bytes + self.moments_bytes

    @property
    def seconds(self) -> float:
        """Estimated seconds of the whole run, if it needs all of its epochs."""
        return self.seconds_rest + self.seconds_trunk + self.epochs * self.seconds_epoch


def estimate(
    settings: Settings, edits: Sequence[EditRequest], location_text: str, rates: DeviceRates | None = None
) -> Estimate:
    """What writing the edits at the location takes on this machine, or on one with these rates; of the model only
    configuration and tokenizer are read. InputError where these or the location are wrong."""
    if not edits:
        raise InputError("there is no edit to write; add rows to the edit file")
    if rates is None:
        check_device(settings.model.device)
    model = meta_model(settings.model)
    location = locate(model, location_text)
    shape = shape_of(model, location, settings.trunk.keep)
    method = find_method(settings.training.method)
    refuse_unfit(method, model, location, edits)
    rows = expected_rows(without_unused_rows(settings, method.abilities), edits)
    work = method.estimate(settings_of(method, settings.training), rows, shape)

    dtype = getattr(torch, settings.model.dtype)
    size = dtype.itemsize
    state = shape.located * (size + 4 + 8 + 4 + (size if size < 4 or len(work.passes) > work.steps else 0))
    state += work.held_bytes
    trunk = kept_positions(rows.all, shape.layout) * shape.kept * size
    largest = max(
        [(pass_bytes(forward_pass, shape, size), forward_pass.rows) for forward_pass in work.passes]
        + [(check_bytes(forward_pass, shape, size), forward_pass.rows) for forward_pass in work.checks]
    )
    limit, apart = int(settings.trunk.memory_gb * GIB), torch.device(settings.model.device).type != "cpu"
    run = _Needs(state + largest[0], 12 * shape.located if apart else 0, min(trunk, limit), apart)
    rates = rates or measured_rates(settings.model.device, dtype)
    pace = MachineSpeed(rates.matrix, rates.memory, size)
    passed, batches = trunk_positions(rows.all)
    around = whole_passes(rows.edits + rows.all)  # edits are measured before and after, protected prompts answered
    if settings.model.placement == "stream":
        parts = StreamedWeights.of(model, location, size)
        placed = _streamed(settings, len(edits), parts, run, passed * shape.width * size)
        from_disk = parts.lower / rates.reading, max(0, placed.read - parts.lower) / rates.reading
    else:
        placed, from_disk = _loaded(settings, shape.model, run), (0.0, 0.0)
    process = process_memory()
    host = placed.host + process + LIBRARY_BYTES
    return Estimate(
        location=location.name,
        parameters=shape.located,
        model_parameters=shape.model,
        weights_bytes=shape.model * size,
        state_bytes=state,
        pass_bytes=largest[0],
        pass_rows=largest[1],
        memory_bytes=placed.on_device if apart else host,
        host_bytes=host,
        process_bytes=process,
        patch_bytes=2 * shape.located * size,
        checkpoint_bytes=work.checkpoint_bytes,
        trunk_bytes=trunk,
        moments_bytes=work.moments_bytes,
        seconds_trunk=max(pace.trunk(passed, batches, shape), from_disk[0]),
        seconds_epoch=pace.epoch(work, shape),
        seconds_rest=pace.forward(around, shape) + HASHED * shape.model * size / HASH_RATE + from_disk[1],
        epochs=work.epochs,
        operations=2
        * (passed * shape.trunk + work.epochs * epoch_products(work, shape) + forward_products(around, shape)),
        placement="stream" if settings.model.placement == "stream" else "memory",
        hidden_bytes=placed.hidden,
        read_bytes=placed.read,
    )


@dataclass(frozen=True)
class _Needs:
    """Memory of a run beside the weights: of training where the model runs, copies of the trained tensors beside an
    accelerator, and the trunk's activations in memory."""

    training: int
    copies: int
    trunk: int
    apart: bool

    def loaded(self, weights: int) -> tuple[int, int]:
        """Most that is held where the model runs, and in the machine's memory, with all weights in memory."""
        on_device = weights + self.training
        return on_device, max(weights, self.trunk + (self.copies if self.apart else on_device))

    def streamed(self, weights: StreamedWeights, hidden: int) -> tuple[int, int]:
        """The same of a streamed model: while rows pass its blocks, or while the upper part is trained."""
        passing, training = weights.passing(0), weights.training + self.training
        if self.apart:
            return max(passing, training), max(hidden + weights.block, self.trunk + self.copies)
        return max(passing, training), max(passing + hidden, training + self.trunk)


@dataclass(frozen=True)
class _Placed:
    """What a placement of the weights takes: memory where the model runs and the machine's, hidden states on disk, and
    bytes read from the weights' files."""

    on_device: int
    host: int
    hidden: int
    read: int


def _loaded(settings: Settings, parameters: int, run: _Needs) -> _Placed:
    """All weights in memory: loaded, and hashed for the manifest."""
    on_device, host = run.loaded(parameters * getattr(torch, settings.model.dtype).itemsize)
    return _Placed(on_device, host, 0, 2 * parameters * stored_type(settings.model).itemsize)


def _streamed(settings: Settings, edits: int, parts: StreamedWeights, run: _Needs, hidden: int) -> _Placed:
    """Blocks read one after the other; `hidden` bytes go from one to the next, on disk where memory may not take them:
    what a block is given, and what it gives."""
    limit = int(settings.trunk.memory_gb * GIB)
    on_device, host = run.streamed(parts, min(hidden, limit))
    passes = answer_passes(settings, edits, PROMPTS_AT_ONCE)
    read = parts.read(passes) * stored_type(settings.model).itemsize // getattr(torch, settings.model.dtype).itemsize
    return _Placed(on_device, host, 2 * hidden if hidden > limit else 0, read)


def check_room(needed: Estimate, free: Available, trunk: TrunkSettings) -> None:
    """RefusedError, with the numbers and what would help, if the run cannot fit.

    On an accelerator a run that lacks memory halves its micro-batch by itself, so there one row at a time must fit.
    """
    what = f"an edit run at {needed.location} needs"
    extra = needed.host_bytes - needed.process_bytes
    if free.accelerator is not None:
        least = needed.memory_bytes - needed.pass_bytes + needed.pass_bytes // needed.pass_rows
        if least > free.accelerator:
            raise RefusedError(
                f"{what} {_gb(least)} on the accelerator with one row a pass, and {_gb(free.accelerator)} are free; "
                "use model.dtype bfloat16, a smaller location or a larger device"
            )
    if extra > free.memory:
        raise RefusedError(f"{what} {_gb(extra)} of memory, and {_gb(free.memory)} are free; {_relief(needed, free)}")
    cached = 0 if trunk.folder is None else needed.cache_bytes
    if trunk.folder is None and needed.cache_bytes > trunk.memory_gb * GIB:
        raise InputError(
            f"{what} {_gb(needed.cache_bytes)} for the trunk's activations, more than trunk.memory_gb "
            f"({trunk.memory_gb:g}); name a trunk.folder to keep them on disk, or raise the limit"
        )
    if free.trunk is not None and cached > free.trunk:
        raise RefusedError(
            f"{what} {_gb(cached)} for the trunk cache '{trunk.folder}', and {_gb(free.trunk)} are free there; make "
            "room or name another trunk.folder"
        )
    disk = needed.patch_bytes + 2 * needed.checkpoint_bytes + (cached if free.trunk is None else 0)
    if disk > free.output:
        raise RefusedError(
            f"{what} {_gb(disk)} of disk, and {_gb(free.output)} are free; make room, or name another --output or "
            "trunk.folder"
        )


def check_model_room(settings: ModelSettings, free: Available) -> None:
    """RefusedError if the model's weights alone do not fit."""
    weights = sum(parameter.nbytes for parameter in meta_model(settings).parameters())
    room = free.memory if free.accelerator is None else free.accelerator
    if weights > room:
        raise RefusedError(
            f"model '{settings.path}': its weights take {_gb(weights)}, and {_gb(room)} of memory are free; use "
            "model.dtype bfloat16, a smaller model or a larger machine, or name localization.location, where a model "
            "that does not fit is streamed"
        )


def describe_estimate(needed: Estimate, free: Available) -> str:
    """Two lines for people."""
    there = free.memory + needed.process_bytes
    memory = f"memory {_gb(needed.host_bytes)} of {_gb(there)}"
    if free.accelerator is not None:
        memory += f", on the accelerator {_gb(needed.memory_bytes)} of {_gb(free.accelerator)}"
    streamed = ""
    if needed.placement == "stream":
        streamed = (
            f"\nthe weights ({_gb(needed.weights_bytes)}) are streamed block by block; about "
            f"{_gb(needed.read_bytes)} are read from their files in all"
        )
    return (
        f"{needed.location} has {_count(needed.parameters)} of {_count(needed.model_parameters)} parameters; {memory}, "
        f"disk {_gb(needed.disk_bytes)} of {_gb(free.output)}\n"
        f"about {needed.seconds_trunk:.1f} s for the frozen layers and {needed.seconds_epoch:.1f} s an epoch; with "
        f"{needed.epochs} epochs, the most, {needed.seconds / 60:.1f} minutes{streamed}"
    )


def _relief(needed: Estimate, free: Available) -> str:
    """What would make it fit."""
    room = free.memory - (needed.host_bytes - needed.process_bytes - needed.pass_bytes)
    rows = int(room * needed.pass_rows / needed.pass_bytes)
    if rows >= 1:
        return f"set training.micro_batch to {rows} or less"
    return "use a smaller model or location, model.dtype bfloat16, or a machine with more memory"


def _gb(size: int) -> str:
    return f"{size / GIB:.2f} GB"


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e9 else f"{parameters / 1e6:.2f} M"
