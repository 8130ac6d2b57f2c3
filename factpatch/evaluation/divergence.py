"""How far an edit moved what a model expects at the first token of its answers: a number that sees a shift before an
answer changes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial

import torch

from factpatch.edits.request import EditRequest
from factpatch.frozen_trunk import Rows, open_rows
from factpatch.models.batches import in_batches
from factpatch.models.encoding import Encoded, encode_prompts
from factpatch.models.loading import LoadedModel
from factpatch.models.locations import Location
from factpatch.settings.config import Settings

PROMPT_LIMIT = 256  # prompts; in float16 their distributions over 262,144 tokens take 128 MiB
LOWEST_LOG_PROBABILITY = -60_000.0  # of a log-probability: float16 ends at -65,504


def drawn_probes(edits: Sequence[EditRequest], seed: int) -> list[str]:
    """The prompts of the locality probes, each once; PROMPT_LIMIT at most, drawn evenly."""
    prompts = list(dict.fromkeys(probe.prompt for edit in edits for probe in edit.locality))
    kept = (
        random.Random(seed).sample(range(len(prompts)), PROMPT_LIMIT)
        if len(prompts) > PROMPT_LIMIT
        else range(len(prompts))
    )
    return [prompts[place] for place in sorted(kept)]


def first_distributions(
    loaded: LoadedModel, prompts: Sequence[str], settings: Settings, location: Location | None = None
) -> torch.Tensor:
    """Log-probabilities of the token after each prompt (prompts x vocabulary, float16, on the CPU). `location` is as in
    `collect_answers`."""
    asked = encode_prompts(loaded.tokenizer, prompts, settings.edits.chat_template)
    rows = [Encoded((*ids, loaded.tokenizer.eos_token_id), len(ids)) for ids in asked]  # any token: it is not read
    with open_rows(loaded, location, rows, settings.trunk) as opened, torch.no_grad():
        places = range(len(rows))
        batches = in_batches(partial(_log_probabilities, opened), places, settings.evaluation.batch_size, loaded.model)
        found = [found_BV for _, found_BV in batches]
    return torch.cat(found) if found else torch.empty((0, 0), dtype=torch.float16)


def _log_probabilities(rows: Rows, chosen: Sequence[int]) -> torch.Tensor:
    told = rows.predict(chosen)
    return told.logits_PV[told.real_P].float().log_softmax(-1).clamp(min=LOWEST_LOG_PROBABILITY).half().cpu()


def divergences(before_NV: torch.Tensor, after_NV: torch.Tensor) -> list[float]:
    """KL(before || after) of each row in nats, one row after the other, so that no more is held in float32."""
    return [
        max(float((one_V.float().exp() * (one_V.float() - other_V.float())).sum()), 0.0)  # rounding may go below 0
        for one_V, other_V in zip(before_NV, after_NV, strict=True)
    ]
