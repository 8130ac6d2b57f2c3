"""Running a model from the kept sites on (its head side), by its own code.

The model's forward stays in charge of masks, positions and types; only modules whose work is kept are replaced for the
time of the run: blocks below hand their input on, the mixer returns what it returned before, and the block and the
entry are given their kept inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from transformers import PreTrainedModel

from factpatch.frozen_trunk.activations import Activations
from factpatch.frozen_trunk.plan import Plan
from factpatch.frozen_trunk.sites import as_items, given_input, handed_on
from factpatch.models.encoding import Encoded
from factpatch.models.forward import Predictions, collate, flatten, supported, target_logits
from factpatch.models.locations import decoder_blocks
from factpatch.models.shadowing import shadowed

HeadRun = Callable[[Sequence[Encoded], Activations], Predictions]


@contextmanager
def head_side(model: PreTrainedModel, plan: Plan) -> Iterator[HeadRun]:
    """A function from rows and their kept activations to predictions; the model is whole again when the block ends."""
    stack, blocks = decoder_blocks(model)
    feed: dict[str, torch.Tensor] = {}
    with ExitStack() as changes:
        for block in blocks[: plan.layer]:
            changes.enter_context(shadowed(block, handed_on(plan.block_items)))
        changes.enter_context(given_input(model, f"{stack}.{plan.layer}", lambda: feed["block"]))
        if plan.mixer:
            mixer = model.get_submodule(plan.mixer)
            changes.enter_context(shadowed(mixer, lambda *inputs, **options: as_items(feed["mixer"], plan.mixer_items)))
        if plan.entry:
            changes.enter_context(given_input(model, plan.entry, lambda: feed["entry"]))
        for name, width in plan.silenced:
            changes.enter_context(shadowed(model.get_submodule(name), _silence(width)))

        def run(rows: Sequence[Encoded], kept: Activations) -> Predictions:
            return _run_packed(model, rows, kept, feed) if plan.packed else _run_padded(model, rows, kept, feed)

        yield run


def _run_packed(
    model: PreTrainedModel, rows: Sequence[Encoded], kept: Activations, feed: dict[str, torch.Tensor]
) -> Predictions:
    """All positions of all rows as one row: what is live treats each alone. Ids and positions have no say."""
    device = model.device
    counts = [len(row.ids) - row.prompt_length for row in rows]
    target_P = torch.tensor([token for row in rows for token in row.ids[row.prompt_length :]], device=device)
    row_P = torch.arange(len(rows)).repeat_interleave(torch.tensor(counts)).to(device)
    nothing_BP = torch.zeros((1, len(target_P)), dtype=torch.long, device=device)
    feed.update(kept.packed(device))
    options = supported(model, position_ids=nothing_BP)
    output = model(input_ids=nothing_BP, attention_mask=torch.ones_like(nothing_BP), use_cache=False, **options)
    return Predictions(output.logits[0], target_P, row_P, torch.ones_like(target_P, dtype=torch.bool), len(rows))


def _run_padded(
    model: PreTrainedModel, rows: Sequence[Encoded], kept: Activations, feed: dict[str, torch.Tensor]
) -> Predictions:
    batch = collate(rows, 0, model.device)
    feed.update(kept.padded(batch.ids_BT.shape[1] - 1, model.device))
    return flatten(target_logits(model, batch), batch)


def _silence(width: int) -> Callable[..., torch.Tensor]:
    return lambda hidden, *inputs, **options: hidden.new_zeros(1).expand(*hidden.shape[:-1], width)
