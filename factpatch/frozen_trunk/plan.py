"""What stays frozen while a location is trained: found by structure.

All blocks below the location's are frozen, and inside its block often the attention and, for a single projection of the
MLP, what feeds it. A plan names the places (sites) whose activations are kept. Where nothing live mixes tokens any more
(an MLP of the last block), rows shrink to the positions that predict target tokens, packed one after the other. Else
rows lie in one row without padding, told apart by their positions, where the model can do that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from factpatch.models.encoding import Encoded, padding_id
from factpatch.models.forward import collate, predict_whole
from factpatch.models.linear import is_projection, sizes
from factpatch.models.loading import LoadedModel, preserved
from factpatch.models.locations import Location, decoder_blocks

Layout = Literal["packed", "padding-free", "padded"]  # how the rows of a pass lie: see Plan


@dataclass(frozen=True)
class Plan:
    """Where to cut the model for one location.

    Attributes:
        location: the trained tensors.
        layer: blocks below it are skipped; the input of block `layer` is kept (site `block`).
        block_items: how many items a block returns; 0 for a bare tensor.
        mixer: the child of the block that mixes tokens, if its output is kept (site `mixer`).
        mixer_items: as `block_items`, for the mixer.
        entry: the located projection, if its input is kept (site `entry`).
        silenced: frozen modules that feed the entry alone and need not run, with the width of their output.
        layout: `packed`: nothing live mixes tokens, so only the positions that predict target tokens are kept;
            `padding-free`: all positions of all rows lie in one row; `padded`: a row each.
    """

    location: Location
    layer: int
    block_items: int
    mixer: str | None = None
    mixer_items: int = 0
    entry: str | None = None
    silenced: tuple[tuple[str, int], ...] = ()
    layout: Layout = "padded"

    @property
    def sites(self) -> tuple[str, ...]:
        """The kept activations by name."""
        return ("block", *(("mixer",) if self.mixer else ()), *(("entry",) if self.entry else ()))

    def place(self, site: str) -> tuple[str, str, bool]:
        """What a site keeps; plans with equal places can share one tensor."""
        module = {"block": str(self.layer), "mixer": self.mixer, "entry": self.entry}[site]
        return site, module or "", self.layout == "packed"

    def positions(self, row: Encoded) -> int:
        """How many positions of a row are kept."""
        return positions(row, self.layout)


def positions(row: Encoded, layout: Layout) -> int:
    """Of a row in a pass: all that predict, or, packed, those alone that predict target tokens."""
    return len(row.ids) - (row.prompt_length if layout == "packed" else 1)


def kept_bytes(model: PreTrainedModel, plan: Plan, rows: Sequence[Encoded]) -> dict[str, int]:
    """What each of a plan's sites takes for the rows."""
    hidden = model.config.get_text_config().hidden_size
    entry = sizes(model.get_submodule(plan.entry))[0] if plan.entry else 0
    each = sum(map(plan.positions, rows)) * model.dtype.itemsize
    return {site: each * (entry if site == "entry" else hidden) for site in plan.sites}


def possible_plans(loaded: LoadedModel, location: Location, probes: Sequence[Encoded]) -> Iterator[Plan]:
    """Plans from the cheapest to the plainest that the structure allows; `open_rows` proves the one it takes."""
    model = loaded.model
    stack, blocks = decoder_blocks(model)
    name, block = f"{stack}.{location.layer}", blocks[location.layer]
    outputs = _probe(loaded, location, probes, name)
    if name not in outputs:
        return
    plain = Plan(location, location.layer, outputs[name].items)
    mixer = next(
        (
            f"{name}.{child}"
            for child, module in block.named_children()
            if f"{name}.{child}" in outputs and not outputs[f"{name}.{child}"].live and _has_matrices(module)
        ),
        None,
    )
    if mixer:
        kept = replace(plain, mixer=mixer, mixer_items=outputs[mixer].items)
        if location.layer == len(blocks) - 1:
            packed = replace(kept, layout="packed")
            entry = entry_of(model, location)
            if entry:
                silenced = tuple(
                    (path, output.width)
                    for path, output in outputs.items()
                    if not output.live
                    and path.rpartition(".")[0] == entry.rpartition(".")[0]
                    and _has_matrices(model.get_submodule(path))
                )
                yield replace(packed, entry=entry, silenced=silenced)
            yield packed
        yield from _without_padding_first(kept)
    yield from _without_padding_first(plain)


def _without_padding_first(plan: Plan) -> Iterator[Plan]:
    yield replace(plan, layout="padding-free")
    yield plan


@dataclass(frozen=True)
class _Output:
    """What a module returned on the probe: number of items (0: a bare tensor), width, whether it depends on the
    located tensors."""

    items: int
    width: int
    live: bool


def _probe(loaded: LoadedModel, location: Location, probes: Sequence[Encoded], block: str) -> dict[str, _Output]:
    """The outputs of the block and of all modules in it, in the order in which they ran."""
    outputs: dict[str, _Output] = {}

    def note(name: str):
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, torch.Tensor):
                outputs[name] = _Output(
                    len(output) if isinstance(output, tuple) else 0, first.shape[-1], first.requires_grad
                )

        return hook

    model = loaded.model
    modules = [(name, module) for name, module in model.named_modules() if f"{name}.".startswith(f"{block}.")]
    handles = [module.register_forward_hook(note(name)) for name, module in modules]
    try:
        with preserved(model, location.parameters):
            for parameter in location.parameters:
                model.get_parameter(parameter).requires_grad_(True)
            predict_whole(model, collate(probes, padding_id(loaded.tokenizer), model.device))
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def entry_of(model: PreTrainedModel, location: Location) -> str | None:
    """The one projection that holds all located tensors; None if there is no such."""
    owners = {name.rpartition(".")[0] for name in location.parameters}
    owner = owners.pop() if len(owners) == 1 else ""
    return owner if owner and is_projection(model.get_submodule(owner)) else None


def _has_matrices(module: nn.Module) -> bool:
    return any(parameter.ndim > 1 for parameter in module.parameters())
