"""Put one question to a model, with a patch or without."""

from __future__ import annotations

from factpatch.errors import InputError
from factpatch.evaluation.generation import decode
from factpatch.models.encoding import encode_prompt
from factpatch.models.loading import load_model
from factpatch.patches.patch import apply_patch, read_patch
from factpatch.settings.config import Settings


def ask(settings: Settings, prompt: str, patch: str | None = None) -> str:
    """The model's greedy answer to `prompt`: its first line that is not blank, within the generation budget."""
    if not prompt.strip():
        raise InputError("the prompt is blank; write the beginning of a sentence or a question")
    if patch is not None:
        read_patch(patch)
    loaded = load_model(settings.model)
    if patch is not None:
        apply_patch(loaded, patch)
    ids = encode_prompt(loaded.tokenizer, prompt, settings.edits.chat_template)
    return decode(loaded, [ids], settings.evaluation.max_new_tokens, batch_size=1)[0].text
