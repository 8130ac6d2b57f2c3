"""Texts that a model makes up: drawn from its own distribution, token by token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import GenerationConfig

from factpatch.models.encoding import padding_id
from factpatch.models.forward import whole_head_product
from factpatch.models.loading import LoadedModel

PREFIX_TOKENS, LEAST_TOKENS = 16, 4  # at most and at least, of a prefix that the model makes up


def sample_ids(
    loaded: LoadedModel, starts: Sequence[Sequence[int]], seed: int, tokens: int = PREFIX_TOKENS
) -> list[tuple[int, ...]]:
    """Short texts drawn from the model's own distribution, one after each of the starts, which have as many tokens
    each: what was drawn, token by token, without the start."""
    if not starts:
        return []
    model, end = loaded.model, loaded.tokenizer.eos_token_id
    start_BT = torch.tensor([list(start) for start in starts], device=model.device)
    config = GenerationConfig(
        do_sample=True,
        top_k=0,
        min_new_tokens=LEAST_TOKENS,
        max_new_tokens=tokens,
        eos_token_id=end,
        pad_token_id=padding_id(loaded.tokenizer),
    )
    with torch.random.fork_rng(), torch.no_grad(), whole_head_product(model):
        torch.manual_seed(seed)
        drawn = model.generate(start_BT, attention_mask=torch.ones_like(start_BT), generation_config=config)  # type: ignore[operator]
    rows = drawn[:, start_BT.shape[1] :].tolist()
    return [tuple(row[: row.index(end) + 1] if end in row else row) for row in rows]


def sample_texts(loaded: LoadedModel, count: int, seed: int) -> list[str]:
    """Texts drawn from the model's own distribution, each on one line, without blank ones."""
    drawn = sample_ids(loaded, [(loaded.tokenizer.eos_token_id,)] * count, seed)
    texts = [plain_text(loaded, ids) for ids in drawn]
    return list(dict.fromkeys(text for text in texts if text))


def plain_text(loaded: LoadedModel, ids: Sequence[int]) -> str:
    """The text of ids, without special tokens, blanks single."""
    return " ".join(str(loaded.tokenizer.decode(list(ids), skip_special_tokens=True)).split())
