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

from factpatch.errors import InputError
from factpatch.evaluation.answer_reader import Answer, AnswerReader, AtAnswersEnd
from factpatch.frozen_trunk import Rows
from factpatch.models.batches import in_batches
from factpatch.models.encoding import padding_id
from factpatch.models.forward import target_counts, whole_head_product
from factpatch.models.loading import LoadedModel
from factpatch.models.tokenization import check_ids
from factpatch.progress import Progress

SHORT_ANSWER_TOKENS = 8  # tokens within which nearly all answers end


@dataclass(frozen=True)
class Verification:
    """What one forward pass over a prompt and a guess (with the token that should end it) showed.

    `answer` is the greedy one if the guess was proven to be it, else None; `begun` are the first tokens of the greedy
    one, up to the first that the guess has not. `token_accuracy` is the share of the guess's tokens (the last not
    counted) that are the arg-max under teacher forcing, and `stops` whether the model ends its answer somewhere where
    the guess goes on.
    """

    answer: Answer | None
    begun: tuple[int, ...]
    token_accuracy: float
    stops: bool


def verify(
    loaded: LoadedModel,
    rows: Rows,
    max_new_tokens: int,
    batch_size: int,
    progress: Progress | None = None,
) -> list[Verification]:
    """Check each guess (rows opened with `factpatch.frozen_trunk`) by one forward pass, in input order. Batches halve
    when memory runs out, as in `decode`."""
    guesses, reader = rows.rows, AnswerReader(loaded)
    check_length(loaded, [guess.ids for guess in guesses])
    order = sorted(range(len(guesses)), key=lambda index: (guesses[index].prompt_length, len(guesses[index].ids)))
    verdicts: dict[int, Verification] = {}
    for chosen, likeliest in in_batches(partial(_likeliest, rows), order, batch_size, loaded.model):
        for index, told in zip(chosen, likeliest, strict=True):
            verdicts[index] = _verdict(reader, guesses[index].ids[guesses[index].prompt_length :], told, max_new_tokens)
        if progress:
            progress(len(verdicts), len(guesses))
    return [verdicts[index] for index in range(len(guesses))]


@dataclass(frozen=True)
class PartialAnswer:
    """Of an answer that is decoded no further than need be: its first tokens, as far as they are known, and how many
    tokens of it are to be had (`least`) before `enough` is asked whether a text with nothing after it will do."""

    begun: tuple[int, ...]
    least: int
    enough: Callable[[str], bool]


def decode(
    loaded: LoadedModel,
    prompts: Sequence[tuple[int, ...]],
    max_new_tokens: int,
    batch_size: int,
    progress: Progress | None = None,
    beginnings: Sequence[PartialAnswer] | None = None,
) -> list[Answer]:
    """The greedy answer to each prompt (token ids), in input order, the same for every batch size; with `beginnings`
    as much of each as is enough.

    Raises InputError where prompt and answer do not fit the model. Answers that do not end within SHORT_ANSWER_TOKENS,
    or are not enough, are continued among themselves, so that one that rambles on does not keep a whole batch.
    """
    model, tokenizer, reader = loaded.model, loaded.tokenizer, AnswerReader(loaded)
    check_length(loaded, prompts, max_new_tokens)
    told: list[tuple[int, ...]] = [beginning.begun for beginning in beginnings] if beginnings else [()] * len(prompts)
    least = [beginning.least for beginning in beginnings] if beginnings else [SHORT_ANSWER_TOKENS] * len(prompts)
    first = [min(count, max_new_tokens) for count in least]

    def generate(chosen: Sequence[int], budgets: Sequence[int]) -> list[list[int]]:
        asked = [prompts[index] + told[index] for index in chosen]
        ids_BT, mask_BT = _pad_left(asked, padding_id(tokenizer), model.device)
        room = [budgets[index] - len(told[index]) for index in chosen]
        out_BT = model.generate(  # type: ignore[operator]  # torch types every unknown attribute as a tensor
            ids_BT,
            attention_mask=mask_BT,
            generation_config=_greedy(tokenizer, reader.stops, max(room)),
            stopping_criteria=[AtAnswersEnd(reader, ids_BT.shape[1], [told[index] for index in chosen], room)],
        )
        return [row[:most] for row, most in zip(out_BT[:, ids_BT.shape[1] :].tolist(), room, strict=True)]

    def over(index: int) -> bool:
        if len(told[index]) >= max_new_tokens or reader.end(told[index]) is not None:
            return True
        if not beginnings or len(told[index]) < first[index]:
            return False
        return beginnings[index].enough(reader.answer(told[index]).text)

    left = {index for index in range(len(prompts)) if not over(index)}
    with _neutral_defaults(model), whole_head_product(model), torch.no_grad():
        for budgets in (first, [max_new_tokens] * len(prompts)):
            short = (index for index in left if len(told[index]) < budgets[index])
            order = sorted(short, key=lambda index: (len(prompts[index]) + len(told[index]), index))
            for chosen, out in in_batches(partial(generate, budgets=budgets), order, batch_size, model):
                for index, row in zip(chosen, out, strict=True):
                    told[index] += tuple(row)
                left -= {index for index in chosen if over(index)}
                if progress:
                    progress(len(prompts) - len(left), len(prompts))
    return [reader.answer(row) for row in told]


def _verdict(reader: AnswerReader, guess: Sequence[int], likeliest: Sequence[int], max_new_tokens: int) -> Verification:
    """What the most likely token at each position of a guess shows."""
    ids, told = tuple(guess[:max_new_tokens]), tuple(likeliest[:max_new_tokens])
    end = reader.end(ids) or max_new_tokens  # a guess that ends too soon proves nothing
    right = [wanted == found for wanted, found in zip(guess, likeliest, strict=True)]
    hits = [*right[: len(ids)], False].index(False)
    proven = len(ids) >= end and hits >= end
    tokens = right[:-1] or right
    stops = any(
        reader.end((*ids[:place], told[place])) == place + 1 != reader.end(ids[: place + 1])
        for place in range(min(end, len(ids)))
        if not right[place]
    )
    begun = ids if hits == len(ids) else (*ids[:hits], told[hits])
    return Verification(reader.answer(ids) if proven else None, begun, sum(tokens) / len(tokens), stops)


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


def _likeliest(rows: Rows, chosen: Sequence[int]) -> list[list[int]]:
    """For each row the most likely token at every position of the guess, EOS included."""
    with torch.no_grad():
        found = rows.predict(chosen)
        likeliest_P = found.logits_PV.argmax(-1)[found.real_P].cpu()
    return [likeliest_K.tolist() for likeliest_K in likeliest_P.split(target_counts(found).tolist())]


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
