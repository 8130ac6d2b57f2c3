"""How sure a model is of an answer: the probability of each of its tokens after the prompt and those before it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from factpatch.evaluation.generation import check_length
from factpatch.frozen_trunk import Rows, open_rows
from factpatch.models.batches import in_batches
from factpatch.models.encoding import Encoded
from factpatch.models.forward import target_counts
from factpatch.models.loading import LoadedModel
from factpatch.settings.config import Settings

SURE_PROBABILITY = 0.5  # least probability of every token of an answer that a model surely knows


def token_chances(loaded: LoadedModel, rows: Sequence[Encoded], settings: Settings) -> list[list[float]]:
    """For each row the probability of every token behind its prompt."""
    check_length(loaded, [row.ids for row in rows])
    by_length = sorted(range(len(rows)), key=lambda index: len(rows[index].ids))
    found: dict[int, list[float]] = {}
    with open_rows(loaded, None, rows, settings.trunk) as opened:
        batches = in_batches(partial(_chances, opened), by_length, settings.evaluation.batch_size, loaded.model)
        for chosen, chances in batches:
            found.update(zip(chosen, chances, strict=True))
    return [found[index] for index in range(len(rows))]


def _chances(rows: Rows, chosen: Sequence[int]) -> list[list[float]]:
    with torch.no_grad():
        told = rows.predict(chosen)
        right_PV = told.logits_PV.float().log_softmax(-1)
        right_P = right_PV.gather(1, told.target_P[:, None])[:, 0][told.real_P].exp()
    return [right_K.tolist() for right_K in right_P.cpu().split(target_counts(told).tolist())]
