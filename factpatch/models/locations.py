"""Where parameters live: decoder blocks and the parts of them, found by structure, named exactly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from factpatch.errors import InputError
from factpatch.models.roles import ROLES, block_roles, matrix_names, part_names


@dataclass(frozen=True)
class Location:
    """A place to write: `module` (such as `mlp.down_proj`, or `` for the whole block) of decoder block `layer`, or of
    each block from there up to `last`.

    Several parts of one block are joined: `mlp.gate_proj+mlp.up_proj`. A role (`down`) is replaced by the parts that it
    stands for, where these are called alike in all layers. `parameters` are the exact names, as in
    `model.named_parameters()`, of the trained tensors.
    """

    layer: int
    module: str
    parameters: tuple[str, ...]
    last: int | None = None

    @property
    def layers(self) -> range:
        """The layers written into, from the lowest."""
        return range(self.layer, (self.layer if self.last is None else self.last) + 1)

    @property
    def name(self) -> str:
        """How users write it: `22:mlp.down_proj`, `19-23:mlp.down_proj`; `23:` is a whole block."""
        span = f"{self.layer}" if self.last is None else f"{self.layer}-{self.last}"
        return f"{span}:{self.module}"

    def to_json(self) -> dict[str, Any]:
        """As `localize.json` and the patch's manifest hold it; `last_layer` where it is of several."""
        last = {} if self.last is None else {"last_layer": self.last}
        return {"name": self.name, "layer": self.layer, **last, "module": self.module}


def decoder_blocks(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The stack of decoder blocks and its name: the longest ModuleList of modules with parameters in the decoder.

    The decoder is what the model says it is, so that the vision tower of a multimodal model is left out.
    """
    decoder = model.get_decoder()
    prefix = next((name for name, module in model.named_modules() if module is decoder), "")
    stacks = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and name.startswith(f"{prefix}." if prefix else "")
        and any(next(block.parameters(), None) is not None for block in module)
    ]
    outer = [(name, stack) for name, stack in stacks if not any(name.startswith(f"{other}.") for other, _ in stacks)]
    if not outer:
        raise InputError(f"{type(model).__name__} has no stack of decoder blocks; this architecture cannot be edited")
    return max(outer, key=lambda item: len(item[1]))


def roles(model: PreTrainedModel, layer: int = 0) -> dict[str, str]:
    """The parts of a decoder block by role, each as a location names it: `{"down": "mlp.down_proj", ...}`.

    Roles are `q k v o` or `qkv`, `gate up` (or `up` alone) or `gate_up`, `down`, `attention`, `mlp` and `block` (the
    empty name); parts that share a role are joined with `+`. What the block does not have is absent. In models that mix
    blocks of several kinds the table differs from layer to layer.
    """
    _, blocks = decoder_blocks(model)
    return block_roles(blocks[layer], model.config.get_text_config().hidden_size)


def locate(model: PreTrainedModel, text: str) -> Location:
    """Resolve `LAYER:MODULE` or `FIRST-LAST:MODULE` to exact parameter names; InputError lists what exists if nothing
    matches.

    MODULE is the path of a module in the block, a role (see `roles`), several of them joined with `+`, or empty for the
    whole block. It stands for its matrices (parameters of two or more dimensions); biases and norms stay frozen.
    """
    stack, blocks = decoder_blocks(model)
    match = re.fullmatch(r"(\d+)(?:-(\d+))?:([\w.]*|[\w.]+(?:\+[\w.]+)+)", text)
    if match is None:
        raise InputError(
            f"location '{text}' is not LAYER:MODULE or FIRST-LAST:MODULE; for example "
            f"{len(blocks) // 2}:{_example(model)}"
        )
    first, last, module = int(match[1]), int(match[2] or match[1]), match[3]
    if first > last:
        raise InputError(f"location '{text}': write the lower layer first, {last}-{first}:{module}")
    if last >= len(blocks):
        raise InputError(
            f"location '{text}': layer {last} does not exist; this model has layers 0 to {len(blocks) - 1}"
        )
    found: list[str] = []
    called: set[str] = set()
    for layer in range(first, last + 1):
        parts, unknown = _resolve(model, layer, module)
        if unknown:
            raise InputError(f"location '{text}': {_absent(model, layer, unknown)}")
        names = (name for name in matrix_names(blocks[layer]) if any(_holds(part, name) for part in parts))
        found += [f"{stack}.{layer}.{name}" for name in names]
        called.add("+".join(parts))
    module = called.pop() if len(called) == 1 else module
    location = Location(first, module, tuple(found), last if last > first else None)
    _check_parameters(model, location)
    return location


def layers_with(model: PreTrainedModel, module: str) -> list[int]:
    """The layers whose block has this module, role or set of them; InputError if none has."""
    found = _layers_having(model, module)
    if not found:
        raise InputError(f"module '{module}': {_absent(model, 0, _resolve(model, 0, module)[1])}")
    return found


def default_module(model: PreTrainedModel) -> str:
    """The MLP's output projection, the place that the method's paper favours; `down` if its name varies by layer."""
    names = {roles(model, layer)["down"] for layer in _layers_having(model, "down")}
    if not names:
        raise InputError(
            f"{type(model).__name__} has no MLP output projection that its structure shows; set localization.modules "
            f"to some of {', '.join(part_names(decoder_blocks(model)[1][0]))}"
        )
    return names.pop() if len(names) == 1 else "down"


def _layers_having(model: PreTrainedModel, module: str) -> list[int]:
    return [layer for layer in range(len(decoder_blocks(model)[1])) if not _resolve(model, layer, module)[1]]


def _resolve(model: PreTrainedModel, layer: int, module: str) -> tuple[list[str], list[str]]:
    """The parts of a block that a text stands for, in the block's order, none inside another; and what it lacks."""
    if not module:
        return [""], []
    block = decoder_blocks(model)[1][layer]
    present, known = part_names(block), roles(model, layer)
    wanted: set[str] = set()
    unknown = []
    for name in module.split("+"):
        if name in present:
            wanted.add(name)
        elif name in known:
            wanted |= set(known[name].split("+"))
        else:
            unknown.append(name)
    if "" in wanted:
        return [""], unknown
    outermost = {part for part in wanted if not any(part != other and _holds(other, part) for other in wanted)}
    return [part for part in present if part in outermost], unknown


def _holds(part: str, name: str) -> bool:
    """Does a part of a block hold the part or parameter of this name? The part `2` never holds `22`."""
    return not part or name == part or name.startswith(f"{part}.")


def _check_parameters(model: PreTrainedModel, location: Location) -> None:
    """InputError if a located tensor also serves elsewhere in the model, or is no matrix of ordinary numbers."""
    located = {id(model.get_parameter(name)): name for name in location.parameters}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if located.get(id(parameter), name) != name:
            raise InputError(
                f"location '{location.name}': {located[id(parameter)]} is one tensor with {name}; choose another "
                "location, since what is shared cannot be edited in one place"
            )
    for name in location.parameters:
        dtype = model.get_parameter(name).dtype
        if not dtype.is_floating_point or dtype.itemsize < 2:
            raise InputError(
                f"location '{location.name}': {name} is quantised ({str(dtype).removeprefix('torch.')}); edit a model "
                "with weights of 16 or 32 bits"
            )


def _absent(model: PreTrainedModel, layer: int, unknown: list[str]) -> str:
    """What a block lacks, and what it has instead."""
    block = decoder_blocks(model)[1][layer]
    kind = "role" if unknown[0] in ROLES else "module"
    return (
        f"no {kind} '{unknown[0]}' in layer {layer}; there are the roles {', '.join(roles(model, layer))} and the "
        f"modules {', '.join(part_names(block))}"
    )


def _example(model: PreTrainedModel) -> str:
    return roles(model, len(decoder_blocks(model)[1]) // 2).get("down", "block")
