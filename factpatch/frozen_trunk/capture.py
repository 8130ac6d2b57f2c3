"""Running rows up to the kept sites, by the model's own code: batch by batch, or a streamed model block by block."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import suppress
from functools import partial

import torch

from factpatch.frozen_trunk.activations import Activations
from factpatch.frozen_trunk.block_by_block import pass_blocks
from factpatch.frozen_trunk.hidden_states import HiddenStates
from factpatch.frozen_trunk.plan import Plan
from factpatch.frozen_trunk.sites import AllSeen, sites_of, watching
from factpatch.frozen_trunk.trunk_batches import (
    TRUNK_BATCH_ROWS,
    Captured,
    by_width,
    filled,
    refuse_broken,
    trunk_batch,
)
from factpatch.models.batches import within_memory
from factpatch.models.encoding import Encoded
from factpatch.models.forward import target_logits
from factpatch.models.loading import LoadedModel
from factpatch.models.placement import stream_of
from factpatch.progress import Progress


def capture(
    loaded: LoadedModel, plans: Sequence[Plan], rows: Sequence[Encoded], progress: Progress | None = None
) -> list[Activations]:
    """The kept activations of the rows, for each plan, from one pass through the trunk. What several plans keep is kept
    once: they share the tensor.

    Batches have a fixed number of rows and a length that depends on the row alone, so that what is kept of a row does
    not depend, to the last bit, on which other rows were asked for. Two things may still change last bits: experts, as
    they take the tokens of all rows of a batch together, and memory that runs out, as batches then halve.
    """
    if stream := stream_of(loaded.model):
        parts = list(pass_blocks(loaded, stream, plans, rows, HiddenStates(), progress, len(rows)))
        return parts[0][1] if parts else Captured(plans, rows).activations(())
    captured, done, size = Captured(plans, rows), 0, TRUNK_BATCH_ROWS
    for group in by_width(rows):
        while group:
            chosen = group[:size]
            seen, size = within_memory(partial(_see, loaded, plans), filled(rows, chosen, size))
            chosen, group = chosen[:size], group[size:]
            for number in range(len(plans)):
                captured.add(number, chosen, seen)
            done += len(chosen)
            if progress:
                progress(done, len(rows))
    return captured.activations(range(len(rows)))


def capture_in_parts(
    loaded: LoadedModel,
    plan: Plan,
    rows: Sequence[Encoded],
    size: int,
    hidden: HiddenStates,
    progress: Progress | None = None,
) -> Iterator[tuple[list[Encoded], Activations]]:
    """What `capture` gives, in parts of about `size` rows as they are done. A streamed model is read once for all; what
    goes from block to block lies in `hidden` then."""
    if stream := stream_of(loaded.model):
        for indices, found in pass_blocks(loaded, stream, [plan], rows, hidden, progress, size):
            yield [rows[index] for index in indices], found[0]
        return
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        report = (lambda done, _, start=start: progress(start + done, len(rows))) if progress else None
        yield list(part), capture(loaded, [plan], part, report)[0]


def _see(loaded: LoadedModel, plans: Sequence[Plan], rows: Sequence[Encoded]) -> dict[Hashable, torch.Tensor]:
    """One pass over rows of one width: (number of the plan, site) -> activations (B, T, W), rows at the end of T."""
    batch = trunk_batch(loaded, rows)
    sites = [site for number, plan in enumerate(plans) for site in sites_of(loaded.model, number, plan)]
    with watching(loaded.model, sites) as seen, torch.no_grad(), suppress(AllSeen):
        target_logits(loaded.model, batch)
    for number, plan in enumerate(plans):
        refuse_broken(plan, number, batch, seen)
    return seen
