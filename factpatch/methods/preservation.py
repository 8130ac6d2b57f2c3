"""The preservation term of the loss: how far preserved answers diverge from those of the base model.

Shape suffixes: P positions that predict a preserved row's answer, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from factpatch.frozen_trunk import Rows
from factpatch.methods.master_weights import Masters
from factpatch.models.batches import in_batches
from factpatch.models.encoding import Encoded
from factpatch.models.forward import Predictions, target_counts

GIB = 2**30
BATCH_ROWS = 64  # of a pass that asks the base model


def divergence(logits_PV: torch.Tensor, base_PV: torch.Tensor) -> torch.Tensor:
    """KL(base || now) at each position (P), from present logits and the base model's log-probabilities."""
    return functional.kl_div(logits_PV.float().log_softmax(-1), base_PV, reduction="none", log_target=True).sum(-1)


class PreservationTerm:
    """The term that holds rows `first` and later of `rows` to what the base model said.

    With `targets` it is the cross-entropy with their targets (the base model's own answers), else the divergence. The
    base model's log-probabilities are kept in memory where they take no more than `memory_gb`, and asked for again in
    every step otherwise.
    """

    def __init__(self, rows: Rows, masters: Masters, first: int, targets: bool = False, memory_gb: float = 1.0) -> None:
        self.first = first
        self._rows, self._masters, self._targets = rows, masters, targets
        self._kept: list[torch.Tensor] | None = None
        if not targets and base_bytes(rows.rows[first:], rows.vocabulary) <= memory_gb * GIB:
            self._kept = [
                row_PV for _, found in in_batches(self._ask, range(first, len(rows)), BATCH_ROWS) for row_PV in found
            ]

    def recall(self, indices: Sequence[int]) -> list[torch.Tensor]:
        """What the base model said on those of the rows that are kept; to be called before their predictions, as the
        model shows its base values for a moment."""
        chosen = [index for index in indices if index >= self.first]
        if self._targets or not chosen:
            return []
        return self._ask(chosen) if self._kept is None else [self._kept[index - self.first] for index in chosen]

    def apply(
        self,
        predictions: Predictions,
        loss_P: torch.Tensor,
        indices: Sequence[int],
        recalled: Sequence[torch.Tensor],
        weight: float,
    ) -> torch.Tensor:
        """The losses with this term's, times `weight`, at the positions of preserved rows; `indices` are the rows of
        the predictions, `recalled` what `recall` gave for them."""
        kept_B = torch.tensor([index >= self.first for index in indices], device=loss_P.device)
        if not kept_B.any():
            return loss_P
        kept_P = kept_B[predictions.row_P] & predictions.real_P
        if self._targets:
            return loss_P * torch.where(kept_P, weight, 1.0)
        term_P = weight * divergence(predictions.logits_PV[kept_P], torch.cat(list(recalled)))
        return loss_P.masked_fill(kept_P, 0.0).masked_scatter(kept_P, term_P)

    def _ask(self, indices: Sequence[int]) -> list[torch.Tensor]:
        """The base model's log-probabilities where each row's answer is due (V for each position)."""
        with torch.no_grad(), self._masters.base():
            predictions = self._rows.predict(list(indices))
            logits_PV = predictions.logits_PV[predictions.real_P].float()
            return list(logits_PV.log_softmax(-1).split(target_counts(predictions).tolist()))


def base_bytes(rows: Sequence[Encoded], vocabulary: int) -> int:
    """Memory that the base model's log-probabilities of preserved rows take."""
    return 4 * vocabulary * sum(len(row.ids) - row.prompt_length for row in rows)
