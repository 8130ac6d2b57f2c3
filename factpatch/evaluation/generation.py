"""Greedy answers: decoded, or proven by one forward pass.

The greedy answer to a prompt is the most likely token, again and again, `max_new_tokens` at most, up to EOS or the end
of the first line that is not blank: many base models break the line before they answer. What is blank before that line
counts as tokens, and is no part of the text. If a guess at an answer is at hand, one teacher-forced pass can prove it:
where the arg-max at every position of the guess, up to where an answer ends, is the guess itself, decoding would have
produced exactly that. Only the other prompts are decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from factpatch.batches import in_batches
from factpatch.encoding import padding_id
from factpatch.errors import InputError
from factpatch.evaluation.reading import Answer, AtAnswersEnd, Reader
from factpatch.forward import target_counts
from factpatch.models import LoadedModel
from factpatch.tokenization import check_ids
from factpatch.trunk import Rows

SHORT = 8  # tokens within which nearly all answers end

Progress = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True)
class Verdict:
    """What one forward pass over a prompt and a guess (with the token that should end it) showed.

    `answer` is the greedy one if the guess was proven to be it, else None. `token_accuracy` is the share of the guess's
    tokens (the last not counted) that are the arg-max under teacher forcing.
    """

    answer: Answer | None
    token_accuracy: float


def verify(
    loaded: LoadedModel,
    rows: Rows,
    max_new_tokens: int,
    batch_size: int,
    progress: Progress | None = None,
) -> list[Verdict]:
    """Check each guess (rows opened with `factpatch.trunk`) by one forward pass, in input order. Batches halve when
    memory runs out, as in `decode`."""
    guesses, reader = rows.rows, Reader(loaded)
    check_length(loaded, [guess.ids for guess in guesses])
    order = sorted(range(len(guesses)), key=lambda index: (guesses[index].prompt_length, len(guesses[index].ids)))
    verdicts: dict[int, Verdict] = {}
    for chosen, hits in in_batches(partial(_hits, rows), order, batch_size):
        for index, right in zip(chosen, hits, strict=True):
            ids = guesses[index].ids[guesses[index].prompt_length :][:max_new_tokens]
            end = reader.end(ids) or max_new_tokens  # a guess that ends too soon proves nothing
            proven = len(ids) >= end and all(right[:end])
            tokens = right[:-1] or right
            verdicts[index] = Verdict(reader.answer(ids) if proven else None, sum(tokens) / len(tokens))
        if progress:
            progress(len(verdicts), len(guesses))
    return [verdicts[index] for index in range(len(guesses))]


def decode(
    loaded: LoadedModel,
    prompts: Sequence[tuple[int, ...]],
    max_new_tokens: int,
    batch_size: int,
    progress: Progress | None = None,
) -> list[Answer]:
    """The greedy answer to each prompt (token ids), in input order, the same for every batch size.

    Raises InputError where prompt and answer do not fit the model. Answers that do not end within SHORT tokens are
    continued among themselves, so that one that rambles on does not keep a whole batch.
    """
    model, tokenizer, reader = loaded.model, loaded.tokenizer, Reader(loaded)
    check_length(loaded, prompts, max_new_tokens)
    told: list[tuple[int, ...]] = [()] * len(prompts)

    def generate(chosen: Sequence[int], config: GenerationConfig) -> list[list[int]]:
        asked = [prompts[index] + told[index] for index in chosen]
        ids_BT, mask_BT = _pad_left(asked, padding_id(tokenizer), model.device)
        out_BT = model.generate(  # type: ignore[operator]  # torch types every unknown attribute as a tensor
            ids_BT,
            attention_mask=mask_BT,
            generation_config=config,
            stopping_criteria=[AtAnswersEnd(reader, ids_BT.shape[1], [told[index] for index in chosen])],
        )
        return out_BT[:, ids_BT.shape[1] :].tolist()

    left: Sequence[int] = range(len(prompts))
    spent = done = 0
    with _neutral_defaults(model), torch.no_grad():
        for budget in sorted({min(SHORT, max_new_tokens), max_new_tokens}):
            order, rambling = sorted(left, key=lambda index: len(prompts[index])), []
            config = _greedy(tokenizer, reader.stops, budget - spent)
            for chosen, out in in_batches(partial(generate, config=config), order, batch_size):
                for index, row in zip(chosen, out, strict=True):
                    told[index] += tuple(row)
                if budget < max_new_tokens:
                    rambling += [index for index in chosen if reader.end(told[index]) is None]
                done += len(chosen)
                if progress:
                    progress(done - len(rambling), len(prompts))
            done -= len(rambling)
            left, spent = rambling, budget
    return [reader.answer(row) for row in told]


def _greedy(tokenizer: PreTrainedTokenizerBase, stops: frozenset[int], tokens: int) -> GenerationConfig:
    """Plain greedy search for so many tokens at most."""
    ends, pad = sorted(stops), padding_id(tokenizer)
    return GenerationConfig(do_sample=False, num_beams=1, max_new_tokens=tokens, eos_token_id=ends, pad_token_id=pad)


def check_length(loaded: LoadedModel, rows: Sequence[Sequence[int]], max_new_tokens: int = 0) -> None:
    """Raise InputError if the longest row and the tokens still to come need more positions than the model has, or a
    token has no embedding."""
    embeddings: Any = loaded.model.get_input_embeddings()  # torch types every unknown attribute as a tensor
    check_ids(loaded.tokenizer, embeddings.num_embeddings, rows)
    room = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)
    longest = max(rows, key=len, default=())
    if room is not None and len(longest) + max_new_tokens > room:
        start = loaded.tokenizer.decode(list(longest[:12]))
        answer = f" and its answer up to {max_new_tokens}" if max_new_tokens else ""
        raise InputError(
            f"prompt {start!r}... has {len(longest)} tokens{answer}, but the model has {room} positions; shorten the "
            "prompt or lower evaluation.max_new_tokens"
        )


def _hits(rows: Rows, chosen: Sequence[int]) -> list[list[bool]]:
    """For each row: is the arg-max right, at every token of the guess and at EOS?"""
    with torch.no_grad():
        found = rows.predict(chosen)
        right_P = (found.logits_PV.argmax(-1) == found.target_P)[found.real_P].cpu()
    return [right_K.tolist() for right_K in right_P.split(target_counts(found).tolist())]


def _pad_left(prompts: Sequence[tuple[int, ...]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask, each row ending in its prompt; `generate` derives the positions from the mask."""
    width = max(map(len, prompts))
    ids_BT = torch.tensor([(pad,) * (width - len(prompt)) + prompt for prompt in prompts], device=device)
    mask_BT = torch.tensor([(0,) * (width - len(prompt)) + (1,) * len(prompt) for prompt in prompts], device=device)
    return ids_BT, mask_BT


@contextmanager
def _neutral_defaults(model: PreTrainedModel) -> Iterator[None]:
    """Plain greedy search, whatever generation settings came with the model: `generate` would mix them in."""
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own
