"""Looking at activations while a model runs: a module's input or output; the pass ends at the last of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from factpatch.frozen_trunk.plan import Plan
from factpatch.models.locations import decoder_blocks


class AllSeen(Exception):
    """Every site has been seen; the rest of the pass is not needed."""


@dataclass(frozen=True)
class Site:
    """The input or the output of a module; what is seen there goes by `key`."""

    key: Hashable
    module: str
    at_input: bool


def sites_of(model: PreTrainedModel, number: int, plan: Plan) -> list[Site]:
    """What a plan keeps, by its number and the name of the site, in the order in which a pass comes by."""
    found = [Site((number, "block"), f"{decoder_blocks(model)[0]}.{plan.layer}", at_input=True)]
    if plan.mixer:
        found.append(Site((number, "mixer"), plan.mixer, at_input=False))
    if plan.entry:
        found.append(Site((number, "entry"), plan.entry, at_input=True))
    return found


@contextmanager
def watching(model: PreTrainedModel, sites: Sequence[Site]) -> Iterator[dict[Hashable, torch.Tensor]]:
    """Collects activations (B, T, width) by key; raises AllSeen inside the pass at the last."""
    seen: dict[Hashable, torch.Tensor] = {}

    def keep(key: Hashable, value: torch.Tensor) -> None:
        seen[key] = value
        if len(seen) == len(sites):
            raise AllSeen

    def at_input(key: Hashable) -> Callable[..., None]:
        return lambda module, inputs, options: keep(key, hidden_input(inputs, options))

    def at_output(key: Hashable) -> Callable[..., None]:
        return lambda module, inputs, output: keep(key, output[0] if isinstance(output, tuple) else output)

    with ExitStack() as hooks:
        for site in sites:
            module = model.get_submodule(site.module)
            if site.at_input:
                hooks.callback(module.register_forward_pre_hook(at_input(site.key), with_kwargs=True).remove)
            else:
                hooks.callback(module.register_forward_hook(at_output(site.key)).remove)
        yield seen


@contextmanager
def given_input(model: PreTrainedModel, module: str, value: Callable[[], torch.Tensor]) -> Iterator[None]:
    """A module is given this value in place of the hidden states that its caller hands it."""

    def hook(called: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if inputs:
            return (value(), *inputs[1:]), options
        return inputs, {**options, "hidden_states": value()}

    handle = model.get_submodule(module).register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def hidden_input(inputs: tuple[Any, ...], options: Mapping[str, Any]) -> torch.Tensor:
    """The hidden states that a module is called with."""
    return inputs[0] if inputs else options["hidden_states"]


def as_items(value: torch.Tensor, items: int) -> Any:
    """`value` in the form that the module's caller unpacks: first of so many items, or bare."""
    return (value, *([None] * (items - 1))) if items else value


def handed_on(items: int) -> Callable[..., Any]:
    """A block's forward function that hands its input on."""
    return lambda *inputs, **options: as_items(hidden_input(inputs, options), items)
