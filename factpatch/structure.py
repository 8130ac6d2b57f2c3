"""Where parameters live: decoder blocks and the modules in them, found by structure, named exactly."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from factpatch.errors import InputError


@dataclass(frozen=True)
class Location:
    """A place to write: `module` (such as `mlp.down_proj`, or `` for the whole block) of decoder block `layer`.

    `parameters` are the exact names, as in `model.named_parameters()`, of the trained tensors.
    """

    layer: int
    module: str
    parameters: tuple[str, ...]

    @property
    def name(self) -> str:
        """How users write it: `22:mlp.down_proj`; `23:` is a whole block."""
        return f"{self.layer}:{self.module}"


def decoder_blocks(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The stack of decoder blocks and its name: the longest ModuleList of blocks of one type with parameters."""
    stacks = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) > 0 and next(module[0].parameters(), None) is not None
    ]
    outer = [(name, stack) for name, stack in stacks if not any(name.startswith(f"{other}.") for other, _ in stacks)]
    if not outer:
        raise InputError(f"{type(model).__name__} has no stack of decoder blocks; this architecture cannot be edited")
    return max(outer, key=lambda item: len(item[1]))


def block_modules(model: PreTrainedModel) -> tuple[str, ...]:
    """Names of all parts of a decoder block that hold matrices (`mlp`, `mlp.down_proj`, …)."""
    _, blocks = decoder_blocks(model)
    names: dict[str, None] = {}
    for block in blocks:
        for name, module in block.named_modules():
            if name and any(parameter.ndim > 1 for parameter in module.parameters()):
                names[name] = None
    return tuple(names)


def locate(model: PreTrainedModel, text: str) -> Location:
    """Resolve `LAYER:MODULE` to exact parameter names; InputError lists what exists if nothing matches.

    A module stands for its matrices (parameters of two or more dimensions); biases and norms stay frozen.
    """
    stack, blocks = decoder_blocks(model)
    match = re.fullmatch(r"(\d+):([\w.]*)", text)
    if match is None:
        raise InputError(f"location '{text}' is not LAYER:MODULE; for example {len(blocks) // 2}:{_example(model)}")
    layer, module = int(match[1]), match[2]
    if layer >= len(blocks):
        raise InputError(
            f"location '{text}': layer {layer} does not exist; this model has layers 0 to {len(blocks) - 1}"
        )
    parts = dict(blocks[layer].named_modules())
    matrices = (
        [name for name, parameter in parts[module].named_parameters() if parameter.ndim > 1] if module in parts else []
    )
    if not matrices:
        raise InputError(
            f"location '{text}': no module '{module}' in layer {layer}; there are {', '.join(block_modules(model))}"
        )
    prefix = f"{stack}.{layer}.{module}." if module else f"{stack}.{layer}."
    return Location(layer, module, tuple(prefix + name for name in matrices))


def default_module(model: PreTrainedModel) -> str:
    """The MLP's output projection of this architecture, the place that the method's paper favours."""
    known = ("mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h", "mlp.fc2", "mlp.dense_down", "feed_forward.w2")
    present = block_modules(model)
    for name in known:
        if name in present:
            return name
    raise InputError(
        f"no MLP output projection known by name; set localization.location to one of {', '.join(present)}"
    )


def _example(model: PreTrainedModel) -> str:
    names = block_modules(model)
    return "mlp.down_proj" if "mlp.down_proj" in names else names[-1]
