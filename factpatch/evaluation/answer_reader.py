"""Where an answer ends among the tokens that a model generates, and what it says.

An answer is the first line that is not blank: many base models break the line before they answer. It ends at a stop
token or with that line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteria

from factpatch.evaluation.answers import first_line
from factpatch.models.loading import LoadedModel


@dataclass(frozen=True)
class Answer:
    """What a model says to a prompt: the very tokens up to where the answer ends, the one that ends it included, and
    their text, which is empty where the model says nothing."""

    text: str
    ids: tuple[int, ...]


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that end an answer: the tokenizer's EOS, and those special tokens that the model's own generation
    settings name (chat models end a turn that way). An id that stands for ordinary text ends nothing."""
    named = model.generation_config.eos_token_id
    named = [] if named is None else [named] if isinstance(named, int) else named
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset({tokenizer.eos_token_id} - {None} | (set(named) & special))


class AnswerReader:
    """Reads a model's answers out of the tokens that it generates."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.stops = stop_ids(loaded.model, loaded.tokenizer)
        self._tokenizer = loaded.tokenizer
        self._known: dict[int, str] = {}

    def end(self, ids: Sequence[int]) -> int | None:
        """How many tokens an answer takes, up to a stop token or the first line break after something that is not
        blank; None if it goes on."""
        begun = False
        for count, token in enumerate(ids, start=1):
            text = self._text(token) if begun else self._text(token).lstrip()
            begun = begun or bool(text)
            if token in self.stops or "\n" in text:
                return count
        return None

    def answer(self, ids: Sequence[int]) -> Answer:
        """The answer that the ids begin with."""
        said = tuple(ids[: self.end(ids)])
        shown = said[:-1] if said and said[-1] in self.stops else said
        text = self._tokenizer.decode(list(shown), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)  # one row in, one text out
        return Answer(first_line(text), said)

    def _text(self, token: int) -> str:
        if token not in self._known:
            self._known[token] = str(self._tokenizer.decode([token]))
        return self._known[token]


class AtAnswersEnd(StoppingCriteria):
    """A stopping criterion of transformers' `generate` that ends each row of a batch where its answer ends.

    A row ends at a stop token, at a line break after its first words, or after `room` new tokens. What is generated
    begins at position `start` of a row, and continues the answer's tokens `told`, which the prompt ends with already.
    """

    def __init__(self, reader: AnswerReader, start: int, told: Sequence[tuple[int, ...]], room: Sequence[int]) -> None:
        self.reader, self.start, self.told, self.room = reader, start, told, room

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: object) -> torch.Tensor:
        new = input_ids[:, self.start :].tolist()
        ended = [
            len(row) >= room or self.reader.end((*told, *row)) is not None
            for told, row, room in zip(self.told, new, self.room, strict=True)
        ]
        return torch.tensor(ended, device=input_ids.device)
