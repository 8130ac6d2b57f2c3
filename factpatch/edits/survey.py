"""A survey of the active rows: what a check must know beyond the one row it looks at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from factpatch.edits.loading import Row

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

TEXTS_AT_ONCE = 1_000  # handed to the tokenizer in one call
STEERING_FIELDS = frozenset({"op", "expires"})  # fields that steer the ledger
DESCRIPTIVE_FIELDS = frozenset({"id", "source", "owner"})  # fields that people read; no model does


@dataclass(frozen=True)
class Survey:
    """Facts over all active rows.

    Attributes:
        budget: tokens an answer may have, EOS included.
        prompts: all edited prompts.
        rivals: the different targets that one file gives a prompt, by file and prompt, where there are several.
        first: the first row with that prompt and target. first_id: the first row that bears that id.
        tokens: length of each target, EOS included; without a tokenizer its words and one, which it has at least, as
            a token hardly ever spans a blank.
        unencodable: texts that are no Unicode (lone surrogates), or that the tokenizer cannot write in ordinary
            tokens: it knows no token for a part of them, takes a part for a special token such as EOS, or for one that
            the model has no embedding for; with why, in words.
    """

    budget: int
    prompts: AbstractSet[str]
    rivals: Mapping[tuple[str, str], set[str]]
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
    stated: dict[tuple[str, str], str] = {}
    rivals: dict[tuple[str, str], set[str]] = {}
    first: dict[tuple[str, str], Row] = {}
    first_id: dict[str, Row] = {}
    read: set[str] = set()  # by a model, beside targets
    shown: set[str] = set()
    for row in rows:
        prompt, target = row.values["prompt"], row.values["target"]
        other = stated.setdefault((row.file, prompt), target)
        if other != target:
            rivals.setdefault((row.file, prompt), {other}).add(target)
        first.setdefault((prompt, target), row)
        if "id" in row.values:
            first_id.setdefault(row.values["id"], row)
        for name, text in texts(row.values):
            if name not in STEERING_FIELDS and name != "target":
                (shown if name in DESCRIPTIVE_FIELDS else read).add(text)
    tokens = {target: len(target.split()) + 1 for _, target in first}
    unencodable = {
        text: "cannot be encoded" for group in (tokens, read, shown) for text in group if not _is_unicode(text)
    }
    if tokenizer is not None:
        special = set(tokenizer.all_special_ids)
        read -= tokens.keys()
        for group, before in ((read, ""), (tokens, " ")):
            for text, ids in _tokenize(tokenizer, [text for text in group if text not in unencodable], before):
                if not special.isdisjoint(ids):
                    unencodable[text] = "cannot be encoded"
                elif embeddings is not None and max(ids, default=0) >= embeddings:
                    beyond = next(token for token in ids if token >= embeddings)
                    token = tokenizer.convert_ids_to_tokens(beyond)
                    unencodable[text] = f"holds {token!r}, a token that the model has no embedding for"
                elif before:
                    tokens[text] = len(ids) + 1
    prompts = frozenset(prompt for _, prompt in stated)
    return Survey(budget, prompts, rivals, first, first_id, tokens, unencodable)


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
    tokenizer: PreTrainedTokenizerBase, wanted: Sequence[str], before: str
) -> Iterator[tuple[str, list[int]]]:
    """Each text with its ids, without the special tokens that the tokenizer would add; `before` stands before it.

    A fast tokenizer is asked for ids alone, without offsets and masks, which saves half of the time.
    """
    for start in range(0, len(wanted), TEXTS_AT_ONCE):
        batch = wanted[start : start + TEXTS_AT_ONCE]
        asked = [before + text for text in batch]
        if tokenizer.is_fast:
            backend: Tokenizer = tokenizer.backend_tokenizer
            backend.no_truncation()
            backend.no_padding()
            encoded = backend.encode_batch_fast(asked, add_special_tokens=False)
            yield from zip(batch, (encoding.ids for encoding in encoded), strict=True)
        else:
            yield from zip(batch, tokenizer(asked, add_special_tokens=False, verbose=False).input_ids, strict=True)
