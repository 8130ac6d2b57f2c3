"""An ordinary model folder of a model in memory, and the proof that it holds the same model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from factpatch.errors import RefusedError
from factpatch.models.checkpoints.tensors import same_bits

TRIAL_TEXTS = ("The capital of France is", "In 1887,  7 men\n\n2 Zürich 東京 x²", " a  b")


@dataclass(frozen=True)
class ConvertedModel:
    """A model folder that was made: of what, where, the type and bytes of its weights, and the largest difference of
    its logits to those of what it was made of."""

    source: str
    folder: Path
    dtype: torch.dtype
    size: int
    difference: float

    def __str__(self) -> str:
        return (
            f"'{self.folder}' made of {self.source}: {str(self.dtype).removeprefix('torch.')}, {self.size / 1e6:,.0f} "
            f"MB; logits differ by {self.difference:.1g} at most"
        )


def prompt_logits(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """Logits at every position of a short text."""
    ids = torch.tensor([tokenizer(TRIAL_TEXTS[0])["input_ids"]])
    with torch.no_grad():
        return model(input_ids=ids).logits.float().cpu()


def save_proved(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    source: str,
    logits: torch.Tensor,
    tolerance: float,
) -> ConvertedModel:
    """Write a model and its tokenizer into an empty folder and read them back.

    RefusedError unless every tensor and every buffer is bit for bit the one in memory, the tokenizer gives the same
    ids, and the logits are those given, up to `tolerance` of their largest.
    """
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    again = AutoModelForCausalLM.from_pretrained(folder, dtype=model.dtype, use_safetensors=True, local_files_only=True)
    written, found = _tensors(model), _tensors(again)
    differing = sorted(
        name
        for name in {*written, *found}
        if not (name in written and name in found and same_bits(written[name], found[name]))
    )
    if differing:
        raise RefusedError(f"{source}: {', '.join(differing[:3])} came out differently when saved; nothing was written")
    try:
        reread = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        same = all(reread(text)["input_ids"] == tokenizer(text)["input_ids"] for text in TRIAL_TEXTS)
    except Exception as error:  # tokenizers has no type of its own for what goes wrong in it
        raise RefusedError(
            f"{source}: the tokenizer cannot be used when saved ({error}); nothing was written"
        ) from error
    if not same:
        raise RefusedError(f"{source}: the tokenizer splits text differently when saved; nothing was written")
    difference = float((prompt_logits(again, reread) - logits).abs().max())
    if not difference <= tolerance * float(logits.abs().max()):
        raise RefusedError(f"{source}: logits of the folder made differ by {difference:.2g}; nothing was written")
    size = sum(file.stat().st_size for file in folder.iterdir())
    return ConvertedModel(source, folder, model.dtype, size, difference)


def _tensors(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return dict([*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)])
