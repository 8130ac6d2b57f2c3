"""From text to token ids."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from factpatch.errors import InputError


@dataclass(frozen=True)
class Encoded:
    """An edit as the model sees it: `ids` = prompt, target, EOS; the first `prompt_length` of them are the prompt."""

    ids: tuple[int, ...]
    prompt_length: int


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str, chat_template: bool = False) -> tuple[int, ...]:
    """The ids of a prompt exactly as at inference."""
    if not chat_template:
        return tuple(tokenizer(prompt).input_ids)
    if tokenizer.chat_template is None:
        raise InputError("edits.chat_template is on, but the model's tokenizer has no chat template; turn it off")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    return tuple(tokenizer(text, add_special_tokens=False).input_ids)


def encode_edit(tokenizer: PreTrainedTokenizerBase, prompt: str, target: str, chat_template: bool = False) -> Encoded:
    """Ids of prompt, one space (unless the texts bring white space), target and EOS.

    The prompt is encoded alone, as at inference, and the target as it stands in the joined text whenever the joined
    ids begin with the prompt's; where a tokenizer merges across the border, the target is encoded on its own, so the
    prompt's ids are always a prefix of the ids trained on.
    """
    if tokenizer.eos_token_id is None:
        raise InputError("the model's tokenizer has no EOS token; set one in tokenizer_config.json")
    prompt_ids = encode_prompt(tokenizer, prompt, chat_template)
    space = "" if chat_template or not prompt or prompt[-1].isspace() or target[:1].isspace() else " "
    continuation = space + target
    target_ids: tuple[int, ...] | None = None
    if not chat_template:
        joined = tuple(tokenizer(prompt + continuation, add_special_tokens=False).input_ids)
        bare = tuple(tokenizer(prompt, add_special_tokens=False).input_ids)
        if joined[: len(bare)] == bare:
            target_ids = joined[len(bare) :]
    if target_ids is None:
        target_ids = tuple(tokenizer(continuation, add_special_tokens=False).input_ids)
    if not prompt_ids or not target_ids:
        raise InputError(f"prompt {prompt!r} with target {target!r} gives no tokens; both must hold text")
    ids = prompt_ids + target_ids
    if ids[-1] != tokenizer.eos_token_id:
        ids += (tokenizer.eos_token_id,)
    return Encoded(ids, len(prompt_ids))


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """EOS: an id that every model has a row for, unlike a pad token. The attention mask hides it."""
    return tokenizer.eos_token_id
