"""The run that MEMIT and AlphaEdit share: target values of a chunk of edits, then their residuals, layer by layer.

Shape suffixes: N edits, I width that a projection reads, O that it writes, W the model's width (here the same as O).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import nn

from factpatch.errors import InputError, RefusedError
from factpatch.methods.base import EditJob, TrainingResult
from factpatch.methods.locate_then_edit.contexts import find_contexts, made_up_prefixes
from factpatch.methods.locate_then_edit.keys import keys_and_values, read_up_to
from factpatch.methods.locate_then_edit.settings import EDITS_AT_ONCE
from factpatch.methods.locate_then_edit.statistics import key_moments
from factpatch.methods.locate_then_edit.target_values import find_target_values
from factpatch.methods.master_weights import masters_of
from factpatch.methods.projections import as_stored, projections
from factpatch.models.batches import in_batches
from factpatch.models.encoding import padding_id
from factpatch.models.forward import collate
from factpatch.models.locations import decoder_blocks

ADDED = 0.5  # of what a projection writes: how far a block's output may lie from having it added


class Solver(Protocol):
    """How a matrix is changed; layers are numbered from 0, everything is in double precision."""

    def change(self, layer: int, key_IN: torch.Tensor, residual_ON: torch.Tensor) -> torch.Tensor:
        """The change (O, I) of a layer's matrix, so that it gives the residuals at the keys."""
        ...

    def learn(self, keys: Sequence[torch.Tensor]) -> None:
        """Told the keys (I, N) of every layer once a chunk of edits is written."""
        ...


def locate_then_edit(
    job: EditJob, chunk: int | None, solver_for: Callable[[Sequence[torch.Tensor]], Solver]
) -> TrainingResult:
    """Write the edits in chunks of so many, or all at once, each on the model as changed so far. What the layers still
    lack to the target values is shared out among those that are left. The model is left as found.

    `solver_for` makes the solver from each layer's second moment (I, I) of general keys.
    """
    loaded, settings = job.loaded, job.training
    located = projections(loaded.model, job.location)
    block = decoder_blocks(loaded.model)[1][job.location.layers[-1]]
    _refuse_unless_added(job, located[-1], block)
    edits = find_contexts(job, made_up_prefixes(loaded, settings.seed))
    solver = solver_for(key_moments(job, located, block))
    losses: list[float] = []
    steps = visits = 0
    with masters_of(loaded.model, job.location) as masters:
        for start in range(0, len(edits), chunk or len(edits)):
            part = edits[start : start + (chunk or len(edits))]
            values = []
            for group, found in in_batches(
                lambda few: find_target_values(loaded, block, few, settings), part, EDITS_AT_ONCE
            ):
                values.append(found.value_NW)
                losses += found.losses
                steps, visits = steps + found.steps, visits + found.visits
                if job.progress:
                    job.progress(len(losses), len(edits), sum(found.losses) / len(group))
            for layer, (module, master) in enumerate(zip(located, masters.tensors, strict=True)):
                keys, now_NW = keys_and_values(loaded, located, block, part)
                residual_NW = (torch.cat(values) - now_NW).double() / (len(located) - layer)
                change = solver.change(layer, keys[layer].T, residual_NW.T)
                if not torch.isfinite(change).all():
                    raise RefusedError(
                        f"the change at layer {job.location.layers[layer]} is not finite; nothing was written. Raise "
                        "training.options.statistics_tokens and run again"
                    )
                master += as_stored(module, change).to(master.dtype)
                masters.write_back()
            solver.learn([key_NI.T for key_NI in keys_and_values(loaded, located, block, part)[0]])
        rounded = loaded.stored.rounded(masters.values())
    return TrainingResult(rounded, tuple(losses), steps, visits, unsure=None, engine="whole")


def _refuse_unless_added(job: EditJob, projection: nn.Module, block: nn.Module) -> None:
    """InputError where the block normalises what the projection writes before it adds it to the hidden state: then no
    change of the matrix adds what it should."""
    batch = collate(job.rows.edits[:1], padding_id(job.loaded.tokenizer), job.loaded.model.device)
    written: list[torch.Tensor] = []

    def double(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        written.append(output[0, -1])
        return 2 * output

    _, once_BTW = read_up_to(job.loaded, [], block, batch)
    hook = projection.register_forward_hook(double)
    try:
        _, twice_BTW = read_up_to(job.loaded, [], block, batch)
    finally:
        hook.remove()
    if (twice_BTW[0, -1] - once_BTW[0, -1] - written[0]).norm() > ADDED * written[0].norm():
        raise InputError(
            f"location '{job.location.name}': {type(block).__name__} normalises what its MLP writes before it adds it, "
            "and this training method needs it added as it is; choose another method"
        )
