"""From text to token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from factpatch.errors import InputError
from factpatch.models.chat_template import in_chat
from factpatch.models.tokenization import added_tokens, one_bos
from factpatch.text.blanks import join


@dataclass(frozen=True)
class Encoded:
    """A prompt and how it goes on, as the model sees it; the first `prompt_length` of the `ids` are the prompt. An edit
    goes on with its target and EOS, a preserved prompt with the very tokens that the model said."""

    ids: tuple[int, ...]
    prompt_length: int


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str, chat_template: bool = False) -> tuple[int, ...]:
    """The ids of a prompt exactly as at inference."""
    return encode_prompts(tokenizer, [prompt], chat_template)[0]


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], chat_template: bool = False
) -> list[tuple[int, ...]]:
    """The ids of many prompts, which a tokenizer gives far sooner in one call than one by one.

    A prompt is to be continued: it begins as the tokenizer begins a text, with BOS once at most, and never ends in the
    EOS that some tokenizers add.
    """
    if not chat_template:
        before, _ = added_tokens(tokenizer)
        begun = one_bos(tokenizer, before)
        return [begun + ids for ids in _ids(tokenizer, prompts)]
    return [one_bos(tokenizer, ids) for ids in _ids(tokenizer, [in_chat(tokenizer, prompt) for prompt in prompts])]


def encode_edit(tokenizer: PreTrainedTokenizerBase, prompt: str, target: str, chat_template: bool = False) -> Encoded:
    """Ids of prompt, one blank (where one belongs, see `factpatch.text.blanks`), target and EOS.

    The prompt is encoded alone, as at inference, and the target as it stands in the joined text whenever the joined
    ids begin with the prompt's; where a tokenizer merges across the border, the target is encoded on its own, so the
    prompt's ids are always a prefix of the ids trained on.
    """
    return encode_pairs(tokenizer, [(prompt, target)], chat_template)[0]


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]], chat_template: bool = False
) -> list[Encoded]:
    """Many prompts with their targets, each as `encode_edit` encodes it."""
    if tokenizer.eos_token_id is None:
        raise InputError("the model's tokenizer has no EOS token; set one in tokenizer_config.json")
    prompts = list(dict.fromkeys(prompt for prompt, _ in pairs))
    asked = dict(zip(prompts, encode_prompts(tokenizer, prompts, chat_template), strict=True))
    if chat_template:
        targets = _ids(tokenizer, [target for _, target in pairs])
    else:
        bare = dict(zip(prompts, _ids(tokenizer, prompts), strict=True))
        joined = _ids(tokenizer, [join(*pair) for pair in pairs])
        targets = [
            whole[len(bare[prompt]) :]
            if whole[: len(bare[prompt])] == bare[prompt]
            else _ids(tokenizer, [join(prompt, target).removeprefix(prompt)])[0]
            for (prompt, target), whole in zip(pairs, joined, strict=True)
        ]
    rows = []
    for (prompt, target), target_ids in zip(pairs, targets, strict=True):
        if not asked[prompt] or not target_ids:
            raise InputError(f"prompt {prompt!r} with target {target!r} gives no tokens; both must hold text")
        end = () if target_ids[-1] == tokenizer.eos_token_id else (tokenizer.eos_token_id,)
        rows.append(Encoded(asked[prompt] + target_ids + end, len(asked[prompt])))
    return rows


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """The ids of texts, without special tokens that the tokenizer would add."""
    return list(map(tuple, tokenizer(list(texts), add_special_tokens=False).input_ids)) if texts else []


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """EOS: an id that every model has a row for, unlike a pad token. The attention mask hides it."""
    return tokenizer.eos_token_id
