"""From text to token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from factpatch.errors import InputError


@dataclass(frozen=True)
class Encoded:
    """An edit as the model sees it: `ids` = prompt, target, EOS; the first `prompt_length` of them are the prompt."""

    ids: tuple[int, ...]
    prompt_length: int


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str, chat_template: bool = False) -> tuple[int, ...]:
    """The ids of a prompt exactly as at inference."""
    return encode_prompts(tokenizer, [prompt], chat_template)[0]


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], chat_template: bool = False
) -> list[tuple[int, ...]]:
    """The ids of many prompts, which a tokenizer gives far sooner in one call than one by one."""
    if not chat_template:
        return _ids(tokenizer, prompts, add_special_tokens=True)
    if tokenizer.chat_template is None:
        raise InputError(
            "the model's tokenizer has no chat template; turn off edits.chat_template and training.both_forms"
        )
    questions = [[{"role": "user", "content": prompt}] for prompt in prompts]
    try:
        texts = [
            str(tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True))
            for question in questions
        ]
    except (TemplateError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"the model's chat template takes no question by itself ({reason}); turn it off") from error
    return _ids(tokenizer, texts)


def encode_edit(tokenizer: PreTrainedTokenizerBase, prompt: str, target: str, chat_template: bool = False) -> Encoded:
    """Ids of prompt, one space (unless the texts bring white space), target and EOS.

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
    continued = [_continuation(prompt, target, chat_template) for prompt, target in pairs]
    if chat_template:
        targets = _ids(tokenizer, continued)
    else:
        texts = [prompt + continuation for (prompt, _), continuation in zip(pairs, continued, strict=True)]
        alike = tokenizer.num_special_tokens_to_add() == 0
        bare = asked if alike else dict(zip(prompts, _ids(tokenizer, prompts), strict=True))
        targets = [
            joined[len(bare[prompt]) :]
            if joined[: len(bare[prompt])] == bare[prompt]
            else _ids(tokenizer, [continuation])[0]
            for (prompt, _), continuation, joined in zip(pairs, continued, _ids(tokenizer, texts), strict=True)
        ]
    rows = []
    for (prompt, target), target_ids in zip(pairs, targets, strict=True):
        if not asked[prompt] or not target_ids:
            raise InputError(f"prompt {prompt!r} with target {target!r} gives no tokens; both must hold text")
        end = () if target_ids[-1] == tokenizer.eos_token_id else (tokenizer.eos_token_id,)
        rows.append(Encoded(asked[prompt] + target_ids + end, len(asked[prompt])))
    return rows


def _continuation(prompt: str, target: str, chat_template: bool) -> str:
    """The target as it follows the prompt."""
    bare = chat_template or not prompt or prompt[-1].isspace() or target[:1].isspace()
    return target if bare else f" {target}"


def _ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], add_special_tokens: bool = False
) -> list[tuple[int, ...]]:
    if not texts:
        return []
    return list(map(tuple, tokenizer(list(texts), add_special_tokens=add_special_tokens).input_ids))


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """EOS: an id that every model has a row for, unlike a pad token. The attention mask hides it."""
    return tokenizer.eos_token_id
