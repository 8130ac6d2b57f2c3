"""One optimizer step over a mini-batch, computed in micro-batches of similar lengths, that refuses broken numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from factpatch.errors import RefusedError
from factpatch.frozen_trunk import Rows
from factpatch.frozen_trunk.plan import Layout
from factpatch.methods.curvature import Held, project
from factpatch.methods.master_weights import Masters
from factpatch.methods.preservation import PreservationTerm
from factpatch.models.batches import within_memory
from factpatch.models.forward import edit_losses, hardest, token_losses

Found = TypeVar("Found")

PADDING = 0.2  # share of a micro-batch's positions that may be padding
SPARE = 256  # positions of padding that cost less than another pass, whatever their share


class Stepper:
    """Adam over the master weights, a mini-batch at a time.

    `micro` bounds the rows of a forward pass; it halves when memory runs out, which changes no result beyond rounding.
    `preservation_term` gives the loss of preserved rows. `token_mean` takes the mean over all target tokens of a
    mini-batch's edits, in place of each edit's mean and then the mean over edits; preserved rows count as before.
    Gradients lose their part in the `held` directions before Adam sees them.
    """

    def __init__(
        self,
        rows: Rows,
        masters: Masters,
        learning_rate: float,
        micro: int | None,
        preservation_term: PreservationTerm | None = None,
        token_mean: bool = False,
        held: Held | None = None,
    ) -> None:
        self.rows, self.masters = rows, masters
        self.preservation_term, self.token_mean = preservation_term, token_mean
        self.micro, self.held = micro, held
        self.optimizer = torch.optim.Adam(masters.tensors, lr=learning_rate)
        self._lengths = rows.lengths

    def gradients(self, indices: Sequence[int], weight: float = 1.0) -> tuple[float, torch.Tensor]:
        """The mini-batch's mean loss, and each row's hardest token loss, in the order of `indices`; gradients are left
        at the masters. `weight` is that of preserved rows.

        RefusedError if the loss or a gradient is not finite, or one row alone does not fit in memory.
        """
        return self._within_memory(lambda rows, micro: self._gradients(rows, micro, weight), indices)

    def look(self, indices: Sequence[int]) -> torch.Tensor:
        """Each row's hardest token loss without training, in the order of `indices`; memory as in `gradients`."""
        with torch.no_grad():
            return self._within_memory(self._look, indices)

    def _within_memory(self, work: Callable[[Sequence[int], int], Found], indices: Sequence[int]) -> Found:
        """`work` on the rows in micro-batches; half as large, from now on, each time that memory runs out."""
        most = min(self.micro or len(indices), len(indices))
        found, micro = within_memory(lambda rows: work(indices, len(rows)), indices[:most])
        if micro < most:
            self.micro = micro
        return found

    def _look(self, indices: Sequence[int], micro: int) -> torch.Tensor:
        parts = micro_batches([self._lengths[index] for index in indices], micro, self.rows.layout)
        hard = []
        for part in parts:
            predictions = self.rows.predict([indices[place] for place in part])
            hard.append(hardest(predictions, token_losses(predictions)))
        return _in_order(torch.cat(hard), parts)

    def _gradients(self, indices: Sequence[int], micro: int, weight: float) -> tuple[float, torch.Tensor]:
        self.masters.clear_gradients()
        losses, hard = [], []
        parts = self._parts(indices, micro)
        per_token = self._per_token(indices) if self.token_mean else None
        for part in parts:
            chosen = [indices[place] for place in part]
            is_preserved = chosen[0] >= self._first_preserved
            if self.preservation_term and is_preserved:
                predictions, loss_P = self.preservation_term.losses(chosen, weight)
            else:
                predictions = self.rows.predict(chosen)
                loss_P = token_losses(predictions)
            if per_token is None or is_preserved:
                loss = edit_losses(predictions, loss_P).sum() / len(indices)
            else:
                loss = loss_P.sum() * per_token
            loss.backward()
            self.masters.take_gradients()
            losses.append(loss.detach())
            hard.append(hardest(predictions, loss_P))
        self.masters.finish_gradients()
        mean, norm = torch.stack([torch.stack(losses).sum(), self.masters.squared_norm()]).tolist()
        for what, value in (("the loss", mean), ("a gradient", norm)):
            if not math.isfinite(value):
                raise RefusedError(
                    f"{what} became {value}; nothing was written. Lower training.learning_rate and run again"
                )
        return mean, _in_order(torch.cat(hard), parts)

    def _parts(self, indices: Sequence[int], micro: int) -> list[list[int]]:
        """Places of the mini-batch's rows in micro-batches, preserved rows apart from those of edits."""
        taught = [place for place, index in enumerate(indices) if index < self._first_preserved]
        preserved = [place for place, index in enumerate(indices) if index >= self._first_preserved]
        return [
            [own[place] for place in part]
            for own in (taught, preserved)
            if own
            for part in micro_batches([self._lengths[indices[place]] for place in own], micro, self.rows.layout)
        ]

    @property
    def _first_preserved(self) -> int:
        """Index of the first preserved row."""
        return self.preservation_term.first if self.preservation_term else len(self.rows)

    def _per_token(self, indices: Sequence[int]) -> float:
        """What a target token of an edit counts in a mini-batch's mean over tokens: all of them together have the share
        that their edits have among its rows."""
        edits = [self.rows.rows[index] for index in indices if index < self._first_preserved]
        tokens = sum(len(row.ids) - row.prompt_length for row in edits)
        return len(edits) / (max(1, tokens) * len(indices))

    def step(self) -> None:
        """Move the masters by their gradients and show the model the result."""
        if self.held:
            for name, master in zip(self.masters.names, self.masters.tensors, strict=True):
                assert master.grad is not None
                master.grad = project(master.grad, self.held[name])
        self.optimizer.step()
        self.masters.write_back()


def _in_order(value_B: torch.Tensor, parts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Values that come micro-batch by micro-batch, in the mini-batch's order."""
    order = torch.tensor([place for part in parts for place in part])
    return value_B.cpu()[order.argsort()]


def micro_batches(lengths: Sequence[int], largest: int | None, layout: Layout) -> list[list[int]]:
    """Places of a mini-batch's rows in groups of at most `largest`: in order, or, where shorter rows are padded, of
    similar lengths, so that padding is no more than the share PADDING of a group's positions, or than SPARE of them."""
    largest = largest or len(lengths)
    if layout != "padded":
        return [list(range(len(lengths)))[start : start + largest] for start in range(0, len(lengths), largest)]
    groups: list[list[int]] = []
    filled = 0
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        filled += lengths[place]
        if groups and len(groups[-1]) < largest:
            room = (len(groups[-1]) + 1) * lengths[groups[-1][0]]
            if room - filled <= max(SPARE, PADDING * room):
                groups[-1].append(place)
                continue
        groups.append([place])
        filled = lengths[place]
    return groups
