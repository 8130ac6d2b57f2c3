"""The preservation term of the loss: how far preserved answers diverge from those of the base model.

Only the base model's likeliest tokens are told apart; all others together are one more outcome. So of each position a
few numbers are kept instead of a whole vocabulary's, and a step computes logits of those tokens and of a random sample
of the others alone, which stands for them all.

Shape suffixes: P positions that predict a preserved row's answer, V vocabulary, K likeliest tokens of a position,
S tokens that a pass computes logits of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from factpatch.frozen_trunk import Rows
from factpatch.models.batches import in_batches
from factpatch.models.encoding import Encoded
from factpatch.models.forward import Predictions, target_counts, token_losses

LIKELIEST = 64  # tokens of a position that are told apart
SAMPLED = 2048  # other tokens of a pass
BATCH_ROWS = 64  # of a pass that asks the base model
LEAST_OTHERS = 1e-6  # probability of all other tokens together, below which it is not followed: float32 ends there
SAME_LOGITS = 1e-3  # of the largest logit: how far logits of some tokens may lie from the same logits of all


@dataclass(frozen=True)
class BasePredictions:
    """What the base model says at the positions of a row: its likeliest tokens, and their log-probabilities."""

    tokens_PK: torch.Tensor
    log_PK: torch.Tensor


def divergence(now_PK: torch.Tensor, base_PK: torch.Tensor) -> torch.Tensor:
    """KL(base || now) at each position (P) over K tokens and all others as one outcome, from log-probabilities."""
    others_P, base_others_P = _others(now_PK), _others(base_PK)
    told_P = (base_PK.exp() * (base_PK - now_PK)).sum(-1)
    return told_P + base_others_P.exp() * (base_others_P - others_P)


def _others(log_PK: torch.Tensor) -> torch.Tensor:
    """The log-probability of all other tokens together (P)."""
    return (1 - log_PK.exp().sum(-1)).clamp(min=LEAST_OTHERS).log()


class PreservationTerm:
    """The loss of preserved rows, which are rows `first` and later of `rows`; the model still has its base values.

    With `targets` it is the cross-entropy with their targets (the base model's own answers), else the divergence.
    """

    def __init__(self, rows: Rows, first: int, targets: bool = False) -> None:
        self.first = first
        self._rows = rows
        self._base_rows: list[BasePredictions] = []
        if not targets:
            self._base_rows = [
                row for _, found in in_batches(self._ask, range(first, len(rows)), BATCH_ROWS) for row in found
            ]
        self._whole = bool(self._base_rows) and not self._some_agree()

    def losses(self, indices: Sequence[int], weight: float) -> tuple[Predictions, torch.Tensor]:
        """Predictions for some preserved rows, with logits of a part of the vocabulary alone perhaps, and their losses
        times `weight` (P)."""
        if not self._base_rows:
            predictions = self._rows.predict(indices)
            return predictions, weight * token_losses(predictions)
        base = [self._base_rows[index - self.first] for index in indices]
        tokens_PK = torch.cat([row.tokens_PK for row in base])
        tokens_S, places_PK, stands_S = self._asked(tokens_PK, indices)
        predictions = self._rows.predict(indices, tokens_S)
        logits_PS = predictions.logits_PV[predictions.real_P].float()
        all_P = (logits_PS + stands_S).logsumexp(-1, keepdim=True)
        now_PK = logits_PS.gather(1, places_PK) - all_P
        loss_P = torch.zeros(len(predictions.real_P), device=now_PK.device)
        term_P = weight * divergence(now_PK, torch.cat([row.log_PK for row in base]))
        return predictions, loss_P.masked_scatter(predictions.real_P, term_P)

    def _asked(
        self, tokens_PK: torch.Tensor, indices: Sequence[int]
    ) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor | float]:
        """Tokens to compute logits of, in order (S; None: all), the places of the likeliest ones among them (P, K), and
        the logarithm of how many tokens each stands for. The sample hangs on the rows alone, so that a run that resumes
        draws as one that was never stopped."""
        told = tokens_PK.unique()
        others = self._rows.vocabulary - len(told)
        if self._whole or others <= 2 * SAMPLED:
            return None, tokens_PK, 0.0
        generator = torch.Generator().manual_seed(hash(tuple(indices)) % 2**63)
        drawn = torch.randint(self._rows.vocabulary, (SAMPLED,), generator=generator).unique().to(told.device)
        drawn = drawn[~torch.isin(drawn, told)]
        tokens_S = torch.cat([told, drawn]).sort().values
        stands = torch.tensor(others / len(drawn), device=told.device).log()
        stands_S = torch.where(torch.isin(tokens_S, told), 0.0, stands)
        return tokens_S, torch.searchsorted(tokens_S, tokens_PK), stands_S

    def _ask(self, indices: Sequence[int]) -> list[BasePredictions]:
        """What the base model says where each row's answer is due."""
        with torch.no_grad():
            predictions = self._rows.predict(indices)
            log_PV = predictions.logits_PV[predictions.real_P].float().log_softmax(-1)
            log_PK, tokens_PK = log_PV.topk(min(LIKELIEST, log_PV.shape[-1]), dim=-1)
            counts = target_counts(predictions).tolist()
            return [BasePredictions(*pair) for pair in zip(tokens_PK.split(counts), log_PK.split(counts), strict=True)]

    def _some_agree(self) -> bool:
        """Does the model give the same logits of some tokens as when it is asked for all? One that computes with the
        whole vocabulary behind them does not."""
        tokens_S = self._base_rows[0].tokens_PK.unique()
        with torch.no_grad():
            whole, some = self._rows.predict([self.first]), self._rows.predict([self.first], tokens_S)
        wanted = whole.logits_PV[:, tokens_S]
        return wanted.shape == some.logits_PV.shape and bool(
            (wanted - some.logits_PV).abs().max() <= SAME_LOGITS * whole.logits_PV.abs().max()
        )


def tokens_asked(positions: int, vocabulary: int) -> int:
    """About how many tokens a pass over so many positions computes logits of: likeliest tokens are often the same."""
    told = min(vocabulary, LIKELIEST * positions // 4)
    return vocabulary if vocabulary - told <= 2 * SAMPLED else told + SAMPLED


def base_bytes(rows: Sequence[Encoded], vocabulary: int) -> int:
    """Memory that the base model's likeliest tokens at preserved rows take."""
    return 12 * min(LIKELIEST, vocabulary) * sum(len(row.ids) - row.prompt_length for row in rows)
