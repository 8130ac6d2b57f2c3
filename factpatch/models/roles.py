"""What the parts of a decoder block are for: attention projections, MLP projections, found by structure and shapes.

A matrix that reads the model's width and one that writes it, side by side outside of what mixes tokens, are an MLP; the
part that takes an attention mask mixes tokens. Names decide only where shapes can't: q, k and v look alike, and so do
gate and up.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from torch import nn

from factpatch.errors import InputError
from factpatch.models.linear import is_transposed

ROLES = ("q", "k", "v", "o", "qkv", "gate", "up", "down", "gate_up", "attention", "mlp", "block")

_LETTER = re.compile(r"w?([qkv])(_proj|_lin|_linear)?|(query|key|value)(_proj|_layer)?")
_OUTPUT = re.compile(r"down|out|4h_to_h|c_proj|o_proj|fc2|w2|wo")
_GATE = re.compile(r"gate|w1$")


@dataclass(frozen=True)
class Matrix:
    """A parameter of two or more dimensions in a block.

    Attributes:
        part: how a location names it: the module of a plain `weight`, else the parameter, such as that of experts.
        sizes: width read and width written. For a stack of expert matrices either order is possible.
        stacked: one matrix for each expert.
    """

    part: str
    sizes: tuple[int, int]
    stacked: bool

    @property
    def leaf(self) -> str:
        return self.part.rpartition(".")[2]

    def reads(self, width: int) -> bool:
        return self.sizes[0] == width or (self.stacked and self.sizes[1] == width)

    def writes(self, width: int) -> bool:
        return self.sizes[1] == width or (self.stacked and self.sizes[0] == width)

    def inner(self, width: int) -> int:
        """The size on the other side of the model's width."""
        return self.sizes[0] if self.sizes[1] == width else self.sizes[1]


def matrix_names(block: nn.Module) -> list[str]:
    """The parameters that a location can hold: of two or more dimensions, and no biases of experts."""
    return [name for name, value in block.named_parameters() if value.ndim > 1 and not name.endswith("bias")]


def part_names(block: nn.Module) -> tuple[str, ...]:
    """All parts of a block that hold matrices: modules (`mlp`, `mlp.down_proj`), and matrices that are no module's
    `weight` (`mlp.experts.down_proj`)."""
    names: dict[str, None] = {}
    for matrix in matrix_names(block):
        *modules, leaf = matrix.split(".")
        for depth in range(1, len(modules) + 1):
            names[".".join(modules[:depth])] = None
        if leaf != "weight":
            names[matrix] = None
    return tuple(names)


def attention_module(block: nn.Module) -> nn.Module:
    """The part of a block that mixes tokens; InputError if it is not exactly one."""
    mixers = _mixers(block)
    if len(mixers) != 1:
        found = " and ".join(mixers) or "none"
        raise InputError(
            f"{type(block).__name__} cannot be told apart into attention and MLP: exactly one of its parts must take "
            f"an attention mask; {found} does"
        )
    return block.get_submodule(mixers[0])


def block_roles(block: nn.Module, width: int) -> dict[str, str]:
    """The parts of a block by role, each as a location names it; several are joined with `+`.

    `width` is the model's hidden size. Roles that the block does not have, or that cannot be told, are absent.
    """
    matrices = _matrices(block)
    mixers = _mixers(block)
    roles: dict[str, list[str]] = {}
    if len(mixers) == 1:
        mixing = [matrix for matrix in matrices if matrix.part.startswith(f"{mixers[0]}.")]
        roles |= {role: [part] for role, part in _attention(mixing, width).items()}
        roles["attention"] = mixers
    for unit in _side_by_side(matrix for matrix in matrices if matrix.part.split(".")[0] not in mixers):
        for role, matrix in _feed_forward(unit, width).items():
            roles.setdefault(role, []).append(matrix.part)
            whole = roles.setdefault("mlp", [])
            if matrix.part.split(".")[0] not in whole:
                whole.append(matrix.part.split(".")[0])
    roles["block"] = [""]
    return {role: "+".join(roles[role]) for role in ROLES if role in roles}


def _mixers(block: nn.Module) -> list[str]:
    """Names of the block's children that hold matrices and take an attention mask."""
    return [
        name
        for name, child in block.named_children()
        if matrix_names(child) and "attention_mask" in inspect.signature(child.forward).parameters
    ]


def _matrices(block: nn.Module) -> list[Matrix]:
    found = []
    for name in matrix_names(block):
        owner, _, leaf = name.rpartition(".")
        shape = tuple(block.get_parameter(name).shape)
        if len(shape) > 3 or (len(shape) == 3 and leaf == "weight"):
            continue  # a convolution
        rows, columns = shape[-2:]
        written_last = is_transposed(block.get_submodule(owner))
        sizes = (rows, columns) if written_last else (columns, rows)
        found.append(Matrix(owner if leaf == "weight" else name, sizes, len(shape) == 3))
    return found


def _side_by_side(matrices: Iterable[Matrix]) -> list[list[Matrix]]:
    """Matrices grouped by the module that holds them."""
    groups: dict[str, list[Matrix]] = {}
    for matrix in matrices:
        groups.setdefault(matrix.part.rpartition(".")[0], []).append(matrix)
    return list(groups.values())


def _attention(matrices: list[Matrix], width: int) -> dict[str, str]:
    """q, k, v, o or qkv, o. A fused qkv writes more than the output projection reads, so shapes tell the two."""
    for fused, output in [matrices, matrices[::-1]] if len(matrices) == 2 else []:
        if fused.reads(width) and output.writes(width) and fused.sizes[1] > output.sizes[0]:
            return {"qkv": fused.part, "o": output.part}
    roles: dict[str, str] = {}
    for letter in "qkv":
        matrix = _only([matrix for matrix in matrices if matrix.reads(width)], partial(_is_for, letter))
        if matrix:
            roles[letter] = matrix.part
    rest = [matrix for matrix in matrices if matrix.part not in roles.values()]
    output_ = _output([matrix for matrix in rest if matrix.writes(width)])
    return roles | ({"o": output_.part} if output_ else {})


def _feed_forward(unit: list[Matrix], width: int) -> dict[str, Matrix]:
    """gate, up, down, or gate_up, down, or up, down; empty if the matrices are no MLP (a router, for example)."""
    writers = [matrix for matrix in unit if matrix.writes(width)]
    # a fused gate_up of experts is twice as wide
    narrowest = min((matrix.inner(width) for matrix in writers), default=0)
    down = _output([matrix for matrix in writers if matrix.inner(width) == narrowest])
    if down is None:
        return {}
    inner = down.inner(width)
    readers = [
        matrix for matrix in unit if matrix is not down and matrix.stacked == down.stacked and matrix.reads(width)
    ]
    into = [matrix for matrix in readers if matrix.inner(width) == inner]
    fused = _only(readers, lambda matrix: matrix.inner(width) == 2 * inner)
    if fused and not into:
        return {"gate_up": fused, "down": down}
    if len(into) == 1:
        return {"up": into[0], "down": down}
    gate = _only(into, lambda matrix: bool(_GATE.search(matrix.leaf)))
    up = _only(into, lambda matrix: matrix is not gate)
    if gate and up:
        return {"gate": gate, "up": up, "down": down}
    return {"down": down} if into else {}


def _output(writers: list[Matrix]) -> Matrix | None:
    """The one matrix that writes the model's width; among several, such as square ones, by name."""
    return writers[0] if len(writers) == 1 else _only(writers, lambda matrix: bool(_OUTPUT.search(matrix.leaf)))


def _is_for(letter: str, matrix: Matrix) -> bool:
    """Is the matrix named for q, k or v?"""
    match = _LETTER.fullmatch(matrix.leaf.lower())
    return match is not None and (match[1] or match[3][0]) == letter


def _only(matrices: Iterable[Matrix], wanted: Callable[[Matrix], bool]) -> Matrix | None:
    """The one matrix that is wanted, if there is exactly one."""
    found = [matrix for matrix in matrices if wanted(matrix)]
    return found[0] if len(found) == 1 else None
