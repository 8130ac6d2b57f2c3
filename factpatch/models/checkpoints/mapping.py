"""Where each parameter of a loaded model lies in its files, and values carried from the one to the other.

A class may name its parameters otherwise than the file does, or join several tensors of the file in one (the experts of
a layer): transformers renames and converts while it loads. Which tensor became which parameter is found as it does it
there, values go back through its own reversal, and both ways are compared with the files before anything rests on them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
    revert_weight_conversion,
)

from factpatch.errors import InputError
from factpatch.models.checkpoints.folder import Checkpoint
from factpatch.models.checkpoints.in_memory import memory_checkpoint
from factpatch.models.checkpoints.tensors import number_type, read_tensor, same_bits

READING_THREADS = 4  # threads that read files; each holds one parameter with what it is made of

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Group:
    """Tensors of the file and the parameters that are made of them: mostly one and one, of the same value.

    `patterns` are, where they are converted, the converter's name for each tensor.
    """

    tensors: tuple[str, ...]
    parameters: tuple[str, ...]
    converter: WeightConverter | None = None
    patterns: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoredParameters:
    """A loaded model and the files that it came from; `groups` say by parameter which tensors it was made of."""

    model: PreTrainedModel
    checkpoint: Checkpoint
    groups: Mapping[str, Group]

    def missing(self) -> list[str]:
        """Parameters that no tensor of the files became, nor is one tensor with such a parameter."""
        named = list(self.model.named_parameters(remove_duplicate=False))
        stored = {id(parameter) for name, parameter in named if name in self.groups}
        return [name for name, parameter in named if id(parameter) not in stored]

    def unused(self) -> list[str]:
        """Tensors of the files that became no part of the model."""
        used = {tensor for group in self.groups.values() for tensor in group.tensors}
        return [name for name in self.checkpoint.tensors if name not in used]

    def mismatched(self) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
        """Tensors whose shape in the files is not that of the parameter: name, shape there, shape of the parameter."""
        found = []
        for group in _distinct(group for group in self.groups.values() if group.converter is None):
            name, wanted = group.tensors[0], tuple(self._value(group.parameters[0]).shape)
            if self.checkpoint.tensors[name].shape != wanted:
                found.append((name, self.checkpoint.tensors[name].shape, wanted))
        return found

    def read(self, names: Iterable[str]) -> dict[str, torch.Tensor]:
        """These parameters and buffers as the files give them."""
        names = list(names)
        found: dict[str, torch.Tensor] = {}
        for group in _distinct(self.groups[name] for name in names):
            found |= self._read(group, {}, self._dtype(group))
        return {name: found[name] for name in names}

    def to_files(self, values: Tensors) -> dict[str, torch.Tensor]:
        """The tensors of the files, each in its type there, that hold these values of parameters; what else such a
        tensor holds is as in the file."""
        found: dict[str, torch.Tensor] = {}
        for group in _distinct(self.groups[name] for name in values):
            entries = [self.checkpoint.tensors[name] for name in group.tensors]
            if group.converter is None:
                made = {group.tensors[0]: values[group.parameters[0]]}
            else:
                exact = reduce(torch.promote_types, map(number_type, entries))
                parts = self._read(group, {}, exact)
                made = self._revert(group, parts | {name: values[name] for name in parts.keys() & values.keys()}, exact)
            for name, entry in zip(group.tensors, entries, strict=True):
                found[name] = made[name].detach().cpu().to(number_type(entry)).contiguous()
        return found

    def from_files(self, tensors: Tensors) -> dict[str, torch.Tensor]:
        """The parameters that are made of these tensors, in their dtype in the model; the other tensors that such a
        parameter is made of are read from the files."""
        owners = {tensor: group for group in self.groups.values() for tensor in group.tensors}
        found: dict[str, torch.Tensor] = {}
        for group in _distinct(owners[name] for name in tensors):
            found |= self._read(group, tensors, self._dtype(group))
        return found

    def rounded(self, values: Tensors) -> dict[str, torch.Tensor]:
        """Values as the files can hold them, in the parameters' own dtype: what a model that is saved and loaded again
        computes with."""
        own = {name: value.to(self.model.get_parameter(name).dtype) for name, value in values.items()}
        held = self.from_files(self.to_files(own))
        return {name: held[name].to(value.device) for name, value in own.items()}

    def differing(self, names: Collection[str] | None = None, changed: Tensors | None = None) -> list[str]:
        """Parameters and buffers (of all, or those of `names`) that are not bit for bit what the files give, with
        `changed` in place of some of their tensors."""

        def look(group: Group) -> list[str]:
            if all(self._value(name).is_meta for name in group.parameters):  # nothing is in memory that could differ
                return []
            made = self._read(group, changed or {}, self._dtype(group))
            return [name for name, value in made.items() if not same_bits(self._value(name), value)]

        chosen = self.groups if names is None else {name: self.groups[name] for name in names}
        with ThreadPoolExecutor(READING_THREADS) as pool:
            found = {name for part in pool.map(look, _distinct(chosen.values())) for name in part}
        return sorted(name for name in found if name in chosen)

    def refuse_unmapped(self, names: Collection[str]) -> None:
        """InputError unless each of these parameters is what its files give, and would be written back as it stands
        there: only then can new values of it be saved."""
        values = {name: self._value(name) for name in names if name in self.groups}
        values |= self.read(name for name, value in values.items() if value.is_meta)
        wrong = [name for name in names if name not in values] or self.differing(names)
        if not wrong:
            back = self.from_files(self.to_files(values))
            wrong = [name for name in names if not same_bits(back[name], values[name])]
        if wrong:
            raise InputError(
                f"'{self.checkpoint.folder}': {wrong[0]} of {type(self.model).__name__} has no place in the files that "
                "it could be written back to; choose another location"
            )

    def _value(self, name: str) -> torch.Tensor:
        return self.model.get_parameter_or_buffer(name).detach()

    def _dtype(self, group: Group) -> torch.dtype:
        return self._value(group.parameters[0]).dtype

    def _read(self, group: Group, changed: Tensors, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """The parameters of a group from the files, or from `changed`; tensors are cast first, as while loading."""
        tensors = {}
        for name in group.tensors:
            value = changed[name] if name in changed else read_tensor(self.checkpoint.tensors[name])
            tensors[name] = value.to(dtype)
        return _converted(self.model, group, tensors)

    def _revert(self, group: Group, values: Tensors, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Tensors of the file from the parameters of a group; InputError if transformers cannot tell."""
        values = {name: value.detach().cpu().to(dtype) for name, value in values.items()}
        try:
            reverted = revert_weight_conversion(self.model, dict(values))
        except Exception as error:  # whatever a conversion that has no reversal raises
            raise self._irreversible(group, str(error)) from error
        prefix = self.model.base_model_prefix
        found: dict[str, torch.Tensor] = {}
        for name in group.tensors:
            names = (name, f"{prefix}.{name}", name.removeprefix(f"{prefix}."))  # as files with the prefix and without
            written = next((known for known in names if known in reverted), "")
            if not written or reverted[written].shape != self.checkpoint.tensors[name].shape:
                raise self._irreversible(group, f"'{name}' is not among what it is saved as")
            found[name] = reverted[written]
        return found

    def _irreversible(self, group: Group, reason: str) -> InputError:
        return InputError(
            f"'{self.checkpoint.folder}': {group.parameters[0]} cannot be written back as it stands in the files "
            f"({' '.join(reason.split())[:200]}); choose another location"
        )


def map_parameters(model: PreTrainedModel, checkpoint: Checkpoint) -> StoredParameters:
    """Find for each parameter and buffer of a model that `from_pretrained` loaded which tensors of the files it is."""
    conversions = getattr(model, "_weight_conversions", None) or []
    renamings = [conversion for conversion in conversions if isinstance(conversion, WeightRenaming)]
    converters = [conversion for conversion in conversions if isinstance(conversion, WeightConverter)]
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    state, prefix = model.state_dict(), model.base_model_prefix
    collected: dict[str, list[tuple[str, str | None]]] = {}
    for tensor in sorted(checkpoint.tensors, key=dot_natural_key):
        name, pattern = rename_source_key(tensor, renamings, converters, prefix, state)
        if name not in state and tensor in state:
            name, pattern = rename_source_key(tensor, [], [], prefix, state)
        if name in state:
            collected.setdefault(name, []).append((tensor, pattern))
    groups: dict[str, Group] = {}
    for name, found in collected.items():
        tensors = tuple(tensor for tensor, _ in found)
        patterns = tuple(pattern for _, pattern in found if pattern is not None)
        if not patterns:
            groups[name] = Group(tensors[-1:], (name,))
            continue
        group = Group(tensors, (name,), by_pattern[patterns[0]], patterns)
        shapes = {tensor: torch.empty(checkpoint.tensors[tensor].shape, device="meta") for tensor in tensors}
        group = Group(tensors, tuple(_converted(model, group, shapes)), group.converter, patterns)
        groups |= dict.fromkeys(group.parameters, group)
    return StoredParameters(model, checkpoint, groups)


def map_in_memory(model: PreTrainedModel, name: str) -> StoredParameters:
    """A loaded model that stands for its own files, under the names and in the types that it has in memory."""
    checkpoint = memory_checkpoint(model, name)
    return StoredParameters(model, checkpoint, {key: Group((key,), (key,)) for key in checkpoint.tensors})


def _converted(model: PreTrainedModel, group: Group, tensors: Tensors) -> dict[str, torch.Tensor]:
    """The parameters that a group's tensors become."""
    if group.converter is None:
        return {group.parameters[0]: tensors[group.tensors[0]]}
    converter: Any = deepcopy(group.converter)
    first = group.parameters[0]
    for name, pattern in zip(group.tensors, group.patterns, strict=True):
        converter.add_tensor(first, name, pattern, tensors[name])
    made = converter.convert(first, model=model, config=model.config)
    return {name: value[0] if isinstance(value, list) else value for name, value in made.items()}


def _distinct(groups: Iterable[Group]) -> list[Group]:
    """Each group once, in their order."""
    return list({group.tensors: group for group in groups}.values())
