"""A survey of the active rows: what a check must know beyond the one row it looks at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from factpatch.edits.loading import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXTS_AT_ONCE = 10_000  # handed to the tokenizer in one call
MARKS = frozenset({"op", "expires"})  # fields that steer the ledger and never reach a model


@dataclass(frozen=True)
class Survey:
    """Facts over all active rows.

    Attributes:
        budget: tokens an answer may have, EOS included.
        targets: the different targets of each prompt; its keys are all edited prompts.
        stated: the different targets that one file gives a prompt, by file and prompt.
        first: the first row with that prompt and target. first_id: the first row that bears that id.
        tokens: length of each target, EOS included; without a tokenizer its words and one, which it has at least, as
            a token hardly ever spans a blank.
        unencodable: texts that are no Unicode (lone surrogates), or that the tokenizer cannot write in ordinary
            tokens: it knows no token for a part of them, takes a part for a special token such as EOS, or for one that
            the model has no embedding for; with why, in words.
    """

    budget: int
    targets: Mapping[str, set[str]]
    stated: Mapping[tuple[str, str], set[str]]
    first: Mapping[tuple[str, str], Row]
    first_id: Mapping[str, Row]
    tokens: Mapping[str, int]
    unencodable: Mapping[str, str]


def survey_rows(
    rows: Sequence[Row],
    budget: int,
    tokenizer: PreTrainedTokenizerBase | None = None,
    embeddings: int | None = None,
) -> Survey:
    """Survey tidied rows whose fields and types were checked; the model has so many `embeddings`, if that is known."""
    targets: dict[str, set[str]] = {}
    stated: dict[tuple[str, str], set[str]] = {}
    first: dict[tuple[str, str], Row] = {}
    first_id: dict[str, Row] = {}
    every_text: set[str] = set()
    for row in rows:
        prompt, target = row.values["prompt"], row.values["target"]
        targets.setdefault(prompt, set()).add(target)
        stated.setdefault((row.file, prompt), set()).add(target)
        first.setdefault((prompt, target), row)
        if "id" in row.values:
            first_id.setdefault(row.values["id"], row)
        every_text.update(text for name, text in texts(row.values) if name not in MARKS)
    unencodable = {text: "cannot be encoded" for text in every_text if not _is_unicode(text)}
    tokens = {target: len(target.split()) + 1 for found in targets.values() for target in found}
    if tokenizer is not None:
        special = set(tokenizer.all_special_ids)
        for text, ids in _tokenize(tokenizer, every_text - unencodable.keys(), ""):
            if not special.isdisjoint(ids):
                unencodable[text] = "cannot be encoded"
            elif embeddings is not None and (beyond := [token for token in ids if token >= embeddings]):
                name = tokenizer.convert_ids_to_tokens(beyond)[0]
                unencodable[text] = f"holds {name!r}, a token that the model has no embedding for"
        lengths = _tokenize(tokenizer, tokens.keys() - unencodable.keys(), " ")
        tokens |= {target: len(ids) + 1 for target, ids in lengths}
    return Survey(budget, targets, stated, first, first_id, tokens, unencodable)


def texts(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every text of a native row with the name of its field."""
    for name, value in values.items():
        yield from ((name, text) for text in _texts_in(value))


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts_in(item)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _tokenize(
    tokenizer: PreTrainedTokenizerBase, wanted: Iterable[str], before: str
) -> Iterator[tuple[str, list[int]]]:
    """Each text with its ids, without the special tokens that the tokenizer would add; `before` stands before it."""
    pending = list(wanted)
    for start in range(0, len(pending), TEXTS_AT_ONCE):
        batch = pending[start : start + TEXTS_AT_ONCE]
        encoded = tokenizer(
            [before + text for text in batch], add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        yield from zip(batch, encoded.input_ids, strict=True)
