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
from factpatch.models.forward import Predictions, collate, flatten, logits_by_index, supported, target_logits
from factpatch.models.locations import decoder_blocks
from factpatch.models.shadowing import shadowed

HeadRun = Callable[[Sequence[Encoded], Activations], Predictions]

PASS_POSITIONS = 512  # of a pass without padding at most, unless one row has more


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
            return _RUNS[plan.layout](model, rows, kept, feed)

        yield run


def _run_packed(
    model: PreTrainedModel, rows: Sequence[Encoded], kept: Activations, feed: dict[str, torch.Tensor]
) -> Predictions:
    """All positions of all rows as one row: what is live treats each alone. Ids and positions have no say."""
    feed.update(kept.packed(model.device))
    nothing_BP = torch.zeros((1, int(kept.length_R.sum())), dtype=torch.long, device=model.device)
    options = supported(model, position_ids=nothing_BP)
    output = model(input_ids=nothing_BP, attention_mask=torch.ones_like(nothing_BP), use_cache=False, **options)
    return _predictions(output.logits[0], rows)


def _run_padded(
    model: PreTrainedModel, rows: Sequence[Encoded], kept: Activations, feed: dict[str, torch.Tensor]
) -> Predictions:
    batch = collate(rows, 0, model.device)
    feed.update(kept.padded(batch.ids_BT.shape[1] - 1, model.device))
    return flatten(target_logits(model, batch), batch)


def _run_padding_free(
    model: PreTrainedModel, rows: Sequence[Encoded], kept: Activations, feed: dict[str, torch.Tensor]
) -> Predictions:
    """Rows one after the other, in passes of bounded length: attention works out all pairs of a pass's positions."""
    passes: list[list[int]] = []
    filled = PASS_POSITIONS
    for index, row in enumerate(rows):
        if filled + len(row.ids) - 1 > PASS_POSITIONS:
            passes.append([])
            filled = 0
        passes[-1].append(index)
        filled += len(row.ids) - 1
    logits = [_run_one_row(model, [rows[index] for index in part], kept.select(part), feed) for part in passes]
    return _predictions(torch.cat(logits), rows)


def _run_one_row(
    model: PreTrainedModel, rows: Sequence[Encoded], kept: Activations, feed: dict[str, torch.Tensor]
) -> torch.Tensor:
    """Logits where a target token is due (P, V), of all rows as one: the model keeps rows apart where positions begin
    anew and no mask is given."""
    device = model.device
    ids_T = torch.tensor([token for row in rows for token in row.ids[:-1]], device=device)
    positions_T = torch.cat([torch.arange(len(row.ids) - 1) for row in rows]).to(device)
    first_T = torch.cat([torch.full((len(row.ids) - 1,), row.prompt_length - 1) for row in rows]).to(device)
    asked_P = (positions_T >= first_T).nonzero()[:, 0]
    feed.update(kept.packed(device))
    options = supported(model, position_ids=positions_T[None])
    options |= {"logits_to_keep": asked_P} if logits_by_index(model) else {}
    logits_TV = model(input_ids=ids_T[None], attention_mask=None, use_cache=False, **options).logits[0]
    return logits_TV if len(logits_TV) == len(asked_P) else logits_TV[asked_P]


def _predictions(logits_PV: torch.Tensor, rows: Sequence[Encoded]) -> Predictions:
    """Of rows that lie one after the other, without padding."""
    device = logits_PV.device
    counts = torch.tensor([len(row.ids) - row.prompt_length for row in rows])
    target_P = torch.tensor([token for row in rows for token in row.ids[row.prompt_length :]], device=device)
    row_P = torch.arange(len(rows)).repeat_interleave(counts).to(device)
    return Predictions(logits_PV, target_P, row_P, torch.ones_like(target_P, dtype=torch.bool), len(rows))


_RUNS = {"packed": _run_packed, "padding-free": _run_padding_free, "padded": _run_padded}


def _silence(width: int) -> Callable[..., torch.Tensor]:
    return lambda hidden, *inputs, **options: hidden.new_zeros(1).expand(*hidden.shape[:-1], width)
