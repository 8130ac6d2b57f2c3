"""Greedy answers: decoded, or proven by one forward pass.

The greedy text of a prompt is the most likely token, again and again, up to EOS or a newline, `max_new_tokens` at most.
If a guess at it is at hand, one teacher-forced pass can prove it: where the arg-max at every position of the guess,
EOS included, is the guess itself, decoding would have produced exactly that. Only the other prompts are decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteria

from factpatch.batches import in_batches
from factpatch.encoding import padding_id
from factpatch.errors import InputError
from factpatch.forward import target_counts
from factpatch.models import LoadedModel
from factpatch.trunk import Rows

SHORT = 8  # tokens within which nearly all answers end

Progress = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True)
class Verdict:
    """What one forward pass over prompt, guess and EOS showed.

    `text` is the greedy text if the guess was proven to be it, else None. `token_accuracy` is the share of the guess's
    tokens (EOS not counted) that are the arg-max under teacher forcing.
    """

    text: str | None
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
    model, tokenizer = loaded.model, loaded.tokenizer
    guesses = rows.rows
    check_length(loaded, [guess.ids for guess in guesses])
    stops = stop_ids(model, tokenizer)
    order = sorted(range(len(guesses)), key=lambda index: (guesses[index].prompt_length, len(guesses[index].ids)))
    verdicts: dict[int, Verdict] = {}
    for chosen, hits in in_batches(partial(_hits, rows), order, batch_size):
        for index, right in zip(chosen, hits, strict=True):
            ids = guesses[index].ids[guesses[index].prompt_length :]
            text = _text(tokenizer, ids[:max_new_tokens], stops) if all(right[:max_new_tokens]) else None
            tokens = right[:-1] or right
            verdicts[index] = Verdict(text, sum(tokens) / len(tokens))
        if progress:
            progress(len(verdicts), len(guesses))
    return [verdicts[index] for index in range(len(guesses))]


def decode(
    loaded: LoadedModel,
    prompts: Sequence[tuple[int, ...]],
    max_new_tokens: int,
    batch_size: int,
    progress: Progress | None = None,
) -> list[str]:
    """The greedy text after each prompt (token ids), in input order, the same for every batch size.

    The text is raw, but for the blanks around it. Raises InputError where prompt and answer do not fit the model.
    Answers that do not end within SHORT tokens are continued among themselves, so that one that rambles on does not
    keep a whole batch.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    check_length(loaded, prompts, max_new_tokens)
    stops, newline = stop_ids(model, tokenizer), StopAtNewline(tokenizer)
    told: list[tuple[int, ...]] = [()] * len(prompts)

    def generate(chosen: Sequence[int], config: GenerationConfig) -> list[list[int]]:
        asked = [prompts[index] + told[index] for index in chosen]
        ids_BT, mask_BT = _pad_left(asked, padding_id(tokenizer), model.device)
        out_BT = model.generate(  # type: ignore[operator]  # torch types every unknown attribute as a tensor
            ids_BT,
            attention_mask=mask_BT,
            generation_config=config,
            stopping_criteria=[newline],
        )
        return out_BT[:, ids_BT.shape[1] :].tolist()

    left: Sequence[int] = range(len(prompts))
    spent = done = 0
    with _neutral_defaults(model), torch.no_grad():
        for budget in sorted({min(SHORT, max_new_tokens), max_new_tokens}):
            order, rambling = sorted(left, key=lambda index: len(prompts[index])), []
            config = _greedy(tokenizer, stops, budget - spent)
            for chosen, out in in_batches(partial(generate, config=config), order, batch_size):
                for index, row in zip(chosen, out, strict=True):
                    told[index] += tuple(row)
                if budget < max_new_tokens:
                    rambling += [index for index in chosen if not newline.ends(told[index], stops)]
                done += len(chosen)
                if progress:
                    progress(done - len(rambling), len(prompts))
            done -= len(rambling)
            left, spent = rambling, budget
    return [_text(tokenizer, row, stops) for row in told]


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that end an answer: the tokenizer's EOS, and those special tokens that the model's own generation
    settings name (chat models end a turn that way). An id that stands for ordinary text ends nothing."""
    named = model.generation_config.eos_token_id
    named = [] if named is None else [named] if isinstance(named, int) else named
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset({tokenizer.eos_token_id} - {None} | (set(named) & special))


def _greedy(tokenizer: PreTrainedTokenizerBase, stops: frozenset[int], tokens: int) -> GenerationConfig:
    """Plain greedy search for so many tokens at most."""
    ends, pad = sorted(stops), padding_id(tokenizer)
    return GenerationConfig(do_sample=False, num_beams=1, max_new_tokens=tokens, eos_token_id=ends, pad_token_id=pad)


class StopAtNewline(StoppingCriteria):
    """Ends a row at the first token whose text holds a newline."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.known: dict[int, bool] = {}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: object) -> torch.Tensor:
        last = input_ids[:, -1].tolist()
        return torch.tensor([self._holds(token) for token in last], device=input_ids.device)

    def ends(self, row: Sequence[int], stops: frozenset[int]) -> bool:
        """Does a generated row end, here or at a stop token?"""
        return any(token in stops or self._holds(token) for token in row)

    def _holds(self, token: int) -> bool:
        if token not in self.known:
            self.known[token] = "\n" in self.tokenizer.decode([token])
        return self.known[token]


def check_length(loaded: LoadedModel, rows: Sequence[Sequence[int]], max_new_tokens: int = 0) -> None:
    """Raise InputError if the longest row and the tokens still to come need more positions than the model has."""
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


def _text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], stops: frozenset[int]) -> str:
    """The text of generated ids up to the first stop token or newline."""
    end = next((position for position, token in enumerate(ids) if token in stops), len(ids))
    text = tokenizer.decode(list(ids[:end]), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)  # one row in, one text out
    return text.partition("\n")[0].strip()


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
