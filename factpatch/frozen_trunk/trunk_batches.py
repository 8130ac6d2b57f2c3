"""The batches in which rows pass the trunk, and what is kept of them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence

import torch

from factpatch.errors import RefusedError
from factpatch.frozen_trunk.activations import Activations
from factpatch.frozen_trunk.plan import Plan
from factpatch.models.encoding import Encoded, padding_id
from factpatch.models.forward import Batch, collate
from factpatch.models.loading import LoadedModel

TRUNK_BATCH_ROWS = 16  # rows of a trunk batch, always, but where memory runs out
TRUNK_BATCH_WIDTH = 8  # input tokens of a trunk batch are a multiple of it


class Captured:
    """What was seen of some rows, row by row, until it is put together. What several plans keep is kept once."""

    def __init__(self, plans: Sequence[Plan], rows: Sequence[Encoded]) -> None:
        self._plans, self._rows = plans, rows
        self._found: dict[tuple[str, str, bool], dict[int, torch.Tensor]] = {}

    def add(self, number: int, chosen: Sequence[int], seen: Mapping[Hashable, torch.Tensor]) -> None:
        """Take what plan `number` keeps of the `chosen` rows; refuses numbers that are not finite."""
        plan = self._plans[number]
        for site in plan.sites:
            parts = self._found.setdefault(plan.place(site), {})
            for line, index in enumerate(chosen):
                if index not in parts:
                    parts[index] = seen[number, site][line, -plan.positions(self._rows[index]) :].clone()

    def activations(self, indices: Sequence[int]) -> list[Activations]:
        """Of each plan what these rows keep, in their order; they are let go of here."""
        flat = {
            place: torch.cat([parts.pop(index) for index in indices]) for place, parts in self._found.items() if indices
        }
        lengths = [[plan.positions(self._rows[index]) for index in indices] for plan in self._plans]
        return [
            Activations.of_shard({site: flat[plan.place(site)] for site in plan.sites if indices}, own)
            for plan, own in zip(self._plans, lengths, strict=True)
        ]


def by_width(rows: Sequence[Encoded]) -> list[list[int]]:
    """The rows that batches can be made of, by the width of these."""
    groups: dict[int, list[int]] = {}
    for index in sorted(range(len(rows)), key=lambda index: (batch_width(rows[index]), index)):
        groups.setdefault(batch_width(rows[index]), []).append(index)
    return list(groups.values())


def trunk_batches(rows: Sequence[Encoded]) -> Iterator[list[int]]:
    """The batches of a pass through the trunk, by the places of their rows."""
    for group in by_width(rows):
        for start in range(0, len(group), TRUNK_BATCH_ROWS):
            yield group[start : start + TRUNK_BATCH_ROWS]


def filled(rows: Sequence[Encoded], chosen: Sequence[int], size: int) -> list[Encoded]:
    """The rows of a batch, its last one repeated up to `size`."""
    return [rows[index] for index in chosen] + [rows[chosen[-1]]] * (size - len(chosen))


def batch_width(row: Encoded) -> int:
    """Input tokens of the batches that a row is computed in: its own, rounded up."""
    return -(-(len(row.ids) - 1) // TRUNK_BATCH_WIDTH) * TRUNK_BATCH_WIDTH


def trunk_batch(loaded: LoadedModel, rows: Sequence[Encoded]) -> Batch:
    """Rows of one width as the model takes them."""
    return collate(rows, padding_id(loaded.tokenizer), loaded.model.device, batch_width(rows[0]) + 1)


def refuse_broken(plan: Plan, number: int, batch: Batch, seen: Mapping[Hashable, torch.Tensor]) -> None:
    """RefusedError where a number that a plan keeps is not finite."""
    real_BT = batch.attention_BT[:, :-1].bool()
    if not all(torch.isfinite(seen[number, site][real_BT]).all() for site in plan.sites):
        raise RefusedError(f"the base model's activations at layer {plan.layer} are not finite; check it")
