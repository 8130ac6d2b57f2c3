"""Running a model up to the kept sites (capture), and from them on (head side), by its own code.

The model's forward stays in charge of masks, positions and types; only modules whose work is kept are replaced for the
time of the run: blocks below hand their input on, the mixer returns what it returned before, and the block and the
entry are given their kept inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from factpatch.errors import RefusedError
from factpatch.frozen_trunk.activations import Activations
from factpatch.frozen_trunk.plan import Plan
from factpatch.models.batches import within_memory
from factpatch.models.encoding import Encoded, padding_id
from factpatch.models.forward import Predictions, collate, flatten, supported, target_logits
from factpatch.models.loading import LoadedModel
from factpatch.models.locations import decoder_blocks

TRUNK_BATCH_ROWS = 32  # rows of a trunk batch, always, but where memory runs out
TRUNK_BATCH_WIDTH = 8  # input tokens of a trunk batch are a multiple of it

HeadRun = Callable[[Sequence[Encoded], Activations], Predictions]


class _AllSeen(Exception):
    """Every site has been seen; the rest of the pass is not needed."""


def capture(
    loaded: LoadedModel,
    plans: Sequence[Plan],
    rows: Sequence[Encoded],
    progress: Callable[[int, int], None] | None = None,
) -> list[Activations]:
    """The kept activations of the rows, for each plan, from one pass through the trunk. What several plans keep is kept
    once: they share the tensor.

    Batches have a fixed number of rows and a length that depends on the row alone, so that what is kept of a row does
    not depend, to the last bit, on which other rows were asked for. Two things may still change last bits: experts, as
    they take the tokens of all rows of a batch together, and memory that runs out, as batches then halve.
    """
    order = sorted(range(len(rows)), key=lambda index: (batch_width(rows[index]), index))
    found: dict[tuple[str, str, bool], dict[int, torch.Tensor]] = {}
    size = TRUNK_BATCH_ROWS
    while order:
        width = batch_width(rows[order[0]])
        chosen = [index for index in order[:size] if batch_width(rows[index]) == width]
        filled = [rows[index] for index in chosen] + [rows[chosen[-1]]] * (size - len(chosen))
        seen, size = within_memory(partial(_see, loaded, plans), filled)
        chosen = chosen[:size]
        order = order[len(chosen) :]
        for number, plan in enumerate(plans):
            for site in plan.sites:
                parts = found.setdefault(plan.place(site), {})
                for line, index in enumerate(chosen):
                    if index not in parts:
                        parts[index] = seen[number, site][line, -plan.positions(rows[index]) :].clone()
        if progress:
            progress(len(rows) - len(order), len(rows))
    flat = {place: torch.cat([parts[index] for index in range(len(rows))]) for place, parts in found.items()}
    return [
        Activations.of_shard(
            {site: flat[plan.place(site)] for site in plan.sites if rows}, [plan.positions(row) for row in rows]
        )
        for plan in plans
    ]


def _see(loaded: LoadedModel, plans: Sequence[Plan], rows: Sequence[Encoded]) -> dict[tuple[int, str], torch.Tensor]:
    """One pass over rows of one width: (number of the plan, site) -> activations (B, T, W), each row at the end of T.

    RefusedError where a number is not finite.
    """
    batch = collate(rows, padding_id(loaded.tokenizer), loaded.model.device, batch_width(rows[0]) + 1)
    with _watching(loaded.model, plans) as seen, torch.no_grad(), suppress(_AllSeen):
        target_logits(loaded.model, batch)
    real_BT = batch.attention_BT[:, :-1].bool()
    for number, plan in enumerate(plans):
        if not all(torch.isfinite(seen[number, site][real_BT]).all() for site in plan.sites):
            raise RefusedError(f"the base model's activations at layer {plan.layer} are not finite; check it")
    return seen


def batch_width(row: Encoded) -> int:
    """Input tokens of the batches that a row is computed in: its own, rounded up."""
    return -(-(len(row.ids) - 1) // TRUNK_BATCH_WIDTH) * TRUNK_BATCH_WIDTH


@contextmanager
def _watching(model: PreTrainedModel, plans: Sequence[Plan]) -> Iterator[dict[tuple[int, str], torch.Tensor]]:
    """Collects (number of the plan, site) -> activations (B, T, width); raises _AllSeen inside the pass at the last."""
    seen: dict[tuple[int, str], torch.Tensor] = {}
    wanted = sum(len(plan.sites) for plan in plans)
    stack, _ = decoder_blocks(model)

    def keep(number: int, site: str, value: torch.Tensor) -> None:
        seen[number, site] = value
        if len(seen) == wanted:
            raise _AllSeen

    def at_input(number: int, site: str) -> Callable[..., None]:
        return lambda module, inputs, options: keep(number, site, _hidden(inputs, options))

    def at_output(number: int, site: str) -> Callable[..., None]:
        return lambda module, inputs, output: keep(number, site, output[0] if isinstance(output, tuple) else output)

    with ExitStack() as hooks:
        for number, plan in enumerate(plans):
            block = model.get_submodule(f"{stack}.{plan.layer}")
            hooks.callback(block.register_forward_pre_hook(at_input(number, "block"), with_kwargs=True).remove)
            if plan.mixer:
                mixer = model.get_submodule(plan.mixer)
                hooks.callback(mixer.register_forward_hook(at_output(number, "mixer")).remove)
            if plan.entry:
                entry = model.get_submodule(plan.entry)
                hooks.callback(entry.register_forward_pre_hook(at_input(number, "entry"), with_kwargs=True).remove)
        yield seen


def _hidden(inputs: tuple[Any, ...], options: Mapping[str, Any]) -> torch.Tensor:
    return inputs[0] if inputs else options["hidden_states"]


@contextmanager
def head_side(model: PreTrainedModel, plan: Plan) -> Iterator[HeadRun]:
    """A function from rows and their kept activations to predictions; the model is whole again when the block ends."""
    _, blocks = decoder_blocks(model)
    feed: dict[str, torch.Tensor] = {}

    def given(site: str) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
            if inputs:
                return (feed[site], *inputs[1:]), options
            return inputs, {**options, "hidden_states": feed[site]}

        return hook

    with ExitStack() as changes:
        for block in blocks[: plan.layer]:
            _replace(changes, block, lambda *inputs, **options: _items(_hidden(inputs, options), plan.block_items))
        block = blocks[plan.layer]
        changes.callback(block.register_forward_pre_hook(given("block"), with_kwargs=True).remove)
        if plan.mixer:
            mixer = model.get_submodule(plan.mixer)
            _replace(changes, mixer, lambda *inputs, **options: _items(feed["mixer"], plan.mixer_items))
        if plan.entry:
            entry = model.get_submodule(plan.entry)
            changes.callback(entry.register_forward_pre_hook(given("entry"), with_kwargs=True).remove)
        for name, width in plan.silenced:
            _replace(changes, model.get_submodule(name), _silence(width))

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


def _replace(changes: ExitStack, module: nn.Module, forward: Callable[..., Any]) -> None:
    """Shadow the module's forward until `changes` closes."""
    module.forward = forward  # type: ignore[method-assign]
    changes.callback(module.__dict__.pop, "forward")


def _items(value: torch.Tensor, items: int) -> Any:
    """`value` in the form that the module's caller unpacks."""
    return (value, *([None] * (items - 1))) if items else value


def _silence(width: int) -> Callable[..., torch.Tensor]:
    return lambda hidden, *inputs, **options: hidden.new_zeros(1).expand(*hidden.shape[:-1], width)
