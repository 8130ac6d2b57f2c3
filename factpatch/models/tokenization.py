"""What tokenizers do by themselves, and whether a model can be asked through them: checked at loading."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from factpatch.errors import InputError
from factpatch.models.chat_template import reasons_first

if TYPE_CHECKING:  # validation does without what they bring
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


def added_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens that the tokenizer puts before a text, and those that it puts after it."""
    if tokenizer.num_special_tokens_to_add() == 0:
        return (), ()
    bare, whole = (tuple(tokenizer("a", add_special_tokens=special).input_ids) for special in (False, True))
    place = next((at for at in range(len(whole)) if whole[at : at + len(bare)] == bare), None)
    if place is None:
        raise InputError("the model's tokenizer splits a text otherwise where it adds its special tokens; use another")
    return whole[:place], whole[place + len(bare) :]


def one_bos(tokenizer: PreTrainedTokenizerBase, ids: tuple[int, ...]) -> tuple[int, ...]:
    """Without a second BOS, which comes about where a template or a tokenizer adds one to one that is there."""
    while len(ids) > 1 and ids[0] == ids[1] == tokenizer.bos_token_id:
        ids = ids[1:]
    return ids


def notes(tokenizer: PreTrainedTokenizerBase, chat_template: bool) -> list[str]:
    """What a user must know of how the model is asked, a sentence each; `chat_template` if any row goes through it."""
    before, after = added_tokens(tokenizer)
    told = []
    if after:
        marks = _shown(tokenizer, after)
        told.append(f"the tokenizer ends every text with {marks}; prompts are asked without, as nothing could follow")
    if before != one_bos(tokenizer, before):
        told.append(f"the tokenizer begins every text with {_shown(tokenizer, before)}; prompts begin with one of them")
    if chat_template and reasons_first(tokenizer):
        told.append(
            "the chat template lets the model reason before it answers: edits are trained and measured behind the "
            "closed block (enable_thinking: false), and what is asked with reasoning on is not measured"
        )
    return told


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, rows: int | None, source: str) -> None:
    """InputError if the model, which has so many `rows` of embeddings, has none for a token that ends or begins every
    text."""
    before, after = added_tokens(tokenizer)
    for token in (tokenizer.eos_token_id, *before, *after):
        if rows is not None and token is not None and token >= rows:
            raise InputError(
                f"model '{source}': its tokenizer's {_shown(tokenizer, [token])} has the id {token}, and the model has "
                f"{rows} rows of embeddings; correct eos_token or bos_token in tokenizer_config.json"
            )


def check_ids(tokenizer: PreTrainedTokenizerBase, embeddings: int, rows: Iterable[Sequence[int]]) -> None:
    """InputError if a row holds a token that the model has no embedding for."""
    for row in rows:
        if row and max(row) >= embeddings:
            beyond = next(token for token in row if token >= embeddings)
            text = tokenizer.decode([token for token in row if token < embeddings])
            raise InputError(
                f"{_shown(tokenizer, [beyond])!r} beside {text[:60]!r} is a token (id {beyond}) that the model has no "
                f"embedding for (it has {embeddings}); reword the text"
            )


def known_rows(config: PretrainedConfig) -> int | None:
    """For how many ids the model has an embedding; None where its configuration does not say."""
    return getattr(config.get_text_config(), "vocab_size", None)


def check_package(source: str) -> None:
    """InputError if a folder's only tokenizer file is one of SentencePiece, and that package is missing: transformers
    would ask for another one."""
    folder = Path(source)
    if (folder / "tokenizer.json").exists() or find_spec("sentencepiece"):
        return
    for path in sorted(folder.glob("*.model")):
        with path.open("rb") as file:
            if file.read(1) == b"\n":  # its files begin so; tiktoken's, of the same name, are text
                raise InputError(
                    f"model '{source}': its only tokenizer file is {path.name}, which takes the package sentencepiece; "
                    "install it (pip install sentencepiece), or add the tokenizer.json that goes with it"
                )


def _shown(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return " ".join(map(str, tokenizer.convert_ids_to_tokens(list(ids))))
