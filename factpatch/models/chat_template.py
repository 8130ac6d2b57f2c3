"""A question in a model's chat template, up to where the answer itself begins, also for models that reason first."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from factpatch.errors import InputError

if TYPE_CHECKING:  # validation does without what it brings
    from transformers import PreTrainedTokenizerBase

NO_REASONING: dict[str, Any] = {"enable_thinking": False, "thinking": False}  # as templates call it
OPEN_REASONING = re.compile(
    r"<([\w:|]*(?:think|thought|reason)[\w:|]*)>\s*$|\[(THINK)\]\s*$", re.IGNORECASE
)  # a block for reasoning that stands open where the answer should begin


def in_chat(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """A question through the chat template, up to where the answer itself begins.

    Where the template would have the model reason first, it is asked not to; and a block for reasoning that stands open
    all the same is closed empty, as templates close it.
    """
    text = _rendered(tokenizer, prompt, **NO_REASONING)
    opened = OPEN_REASONING.search(text)
    if opened is None:
        return text
    mark, closing = text[opened.start() :].strip(), "/" + (opened[1] or opened[2])
    end = f"<{closing}>" if opened[1] else f"[{closing}]"
    return f"{text[: opened.start()]}{mark}\n\n{end}\n\n"


def reasons_first(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template, used as it is, lets the model reason before it answers."""
    return in_chat(tokenizer, "?") != _rendered(tokenizer, "?")


def _rendered(tokenizer: PreTrainedTokenizerBase, prompt: str, **options: Any) -> str:
    if tokenizer.chat_template is None:
        raise InputError(
            "the model's tokenizer has no chat template; turn off edits.chat_template and "
            "training.augmentation.both_forms"
        )
    question = [{"role": "user", "content": prompt}]
    try:
        return str(tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True, **options))
    except (TemplateError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"the model's chat template takes no question by itself ({reason}); turn it off") from error
