"""A pass of all rows through the blocks of a streamed model: each block is read once, and every batch passes it.

A batch comes through one block at a time by the model's own code: blocks below hand their input on, and the block is
given what the one below it gave before. So masks, positions and types are those of a whole pass, and so is every bit.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress

import torch

from factpatch.errors import RefusedError
from factpatch.frozen_trunk.activations import Activations
from factpatch.frozen_trunk.hidden_states import HiddenStates, Shape
from factpatch.frozen_trunk.plan import Plan
from factpatch.frozen_trunk.sites import AllSeen, Site, given_input, handed_on, sites_of, watching
from factpatch.frozen_trunk.trunk_batches import (
    TRUNK_BATCH_ROWS,
    Captured,
    batch_width,
    filled,
    refuse_broken,
    trunk_batch,
    trunk_batches,
)
from factpatch.models.batches import out_of_memory
from factpatch.models.encoding import Encoded
from factpatch.models.forward import target_logits
from factpatch.models.loading import LoadedModel
from factpatch.models.locations import decoder_blocks
from factpatch.models.placement import BlockStream
from factpatch.models.shadowing import shadowed
from factpatch.progress import Progress

OUTPUT = "output"  # key of what a block gives to the next

Seen = Mapping[Hashable, torch.Tensor]


def pass_blocks(
    loaded: LoadedModel,
    stream: BlockStream,
    plans: Sequence[Plan],
    rows: Sequence[Encoded],
    hidden: HiddenStates,
    progress: Progress | None,
    size: int,
) -> Iterator[tuple[list[int], list[Activations]]]:
    """What each plan keeps of the rows, for `size` of them or a few more at a time: their places, in order, and the
    activations. A pass that was killed begins at the block that `hidden` holds the input of."""
    batches, captured = list(trunk_batches(rows)), Captured(plans, rows)
    if not batches:
        return
    shapes = hidden_shapes(loaded, rows)
    top, lowest = (edge(plan.layer for plan in plans) for edge in (max, min))
    run_blocks = top + any(plan.mixer for plan in plans if plan.layer == top)  # the last one's input may be enough
    start = hidden.last(shapes, loaded.model.dtype)
    ready: list[int] = []
    for layer in range(start if start <= lowest else 0, top + 1):
        with ExitStack() as stack:
            if layer < run_blocks:
                stack.enter_context(stream.block(layer, layer + 1 if layer + 1 < run_blocks else None))
            run = stack.enter_context(_one_block(loaded, plans, layer, layer < top))
            writer = stack.enter_context(hidden.writing(layer + 1)) if layer < top else None
            given: Iterable[torch.Tensor | None] = [None] * len(batches)
            if layer:
                given = hidden.read(layer, shapes, loaded.model.dtype)
            for place, (chosen, value) in enumerate(zip(batches, given, strict=True)):
                seen = run(filled(rows, chosen, TRUNK_BATCH_ROWS), value)
                for number, plan in enumerate(plans):
                    if plan.layer == layer:
                        captured.add(number, chosen, seen)
                if writer:
                    writer.take(seen[OUTPUT])
                else:
                    ready += chosen
                if progress:
                    done = (layer + (place + 1) / len(batches)) / (top + 1)
                    progress(int(done * len(rows)), len(rows))
                if len(ready) >= size or (ready and place == len(batches) - 1):
                    ready, part = [], sorted(ready)
                    yield part, captured.activations(part)
    hidden.clear()


def hidden_shapes(loaded: LoadedModel, rows: Sequence[Encoded]) -> list[Shape]:
    """Rows, positions and width of the hidden states of every batch."""
    width = loaded.model.config.get_text_config().hidden_size
    return [(TRUNK_BATCH_ROWS, batch_width(rows[chosen[0]]), width) for chosen in trunk_batches(rows)]


@contextmanager
def _one_block(
    loaded: LoadedModel, plans: Sequence[Plan], layer: int, further: bool
) -> Iterator[Callable[[Sequence[Encoded], torch.Tensor | None], Seen]]:
    """A function from a batch's rows and the hidden states that a block is given (None: the embeddings) to what is seen
    there: what plans keep, and, if it goes `further`, what the next block is given."""
    model, (stack, blocks) = loaded.model, decoder_blocks(loaded.model)
    here = [(number, plan) for number, plan in enumerate(plans) if plan.layer == layer]
    sites = [site for number, plan in here for site in sites_of(model, number, plan)]
    if further:
        sites.append(Site(OUTPUT, f"{stack}.{layer}", at_input=False))
    feed: list[torch.Tensor] = []

    def run(rows: Sequence[Encoded], value: torch.Tensor | None) -> Seen:
        batch = trunk_batch(loaded, rows)
        feed[:] = [] if value is None else [value.to(model.device)]
        try:
            with watching(model, sites) as seen, torch.no_grad(), suppress(AllSeen):
                target_logits(model, batch)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise RefusedError(
                f"memory runs out with {len(rows)} rows in block {layer}; use model.dtype bfloat16, lower "
                "trunk.memory_gb, or a machine with more memory"
            ) from error
        for number, plan in here:
            refuse_broken(plan, number, batch, seen)
        return seen

    with ExitStack() as changes:
        for block in blocks[:layer]:
            changes.enter_context(shadowed(block, handed_on(plans[0].block_items)))
        if layer:
            changes.enter_context(given_input(model, f"{stack}.{layer}", lambda: feed[0]))
        yield run
