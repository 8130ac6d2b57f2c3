"""The forms whose values are chosen by samples of text, GPTQ and AWQ.

As when they are made for serving, a checkpoint in bf16 is quantized; here by texts that the model draws itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from factpatch.delivery.gptq import gptq_values
from factpatch.errors import InputError
from factpatch.models.linear import is_projection, sizes
from factpatch.models.loading import LoadedModel
from factpatch.models.locations import decoder_blocks
from factpatch.models.placement import stream_of
from factpatch.models.sampling import sample_ids

CALIBRATED = ("gptq", "awq")
TEXTS, TOKENS = 64, 128  # drawn for calibration
GROUPS = (128, 64, 32)  # numbers that share a scale; kernels want rows that are a multiple


def calibration_rows(loaded: LoadedModel, seed: int) -> torch.Tensor:
    """Texts that the model draws itself, one after the other, as rows of ids of one length, shape (N, T)."""
    if stream_of(loaded.model) is not None:
        told = f"serving.formats names {' or '.join(CALIBRATED)}, but a streamed model is not quantized"
        raise InputError(f"{told}; take model.placement: memory, or leave the form out")
    end = loaded.tokenizer.eos_token_id
    room = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None) or TOKENS
    tokens = min(TOKENS, room - 1)
    drawn = [id for text in sample_ids(loaded, [(end,)] * TEXTS, seed, tokens) for id in (end, *text)]
    return torch.tensor(drawn[: len(drawn) // tokens * tokens]).view(-1, tokens)


def calibrated_values(loaded: LoadedModel, form: str, rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """What every parameter becomes when the model, as it is now, is quantized; the model itself stays as it is."""
    group = group_size(loaded)
    return gptq_values(loaded, rows, group) if form == "gptq" else _awq_values(loaded, rows, group)


def _awq_values(loaded: LoadedModel, rows: torch.Tensor, group: int) -> dict[str, torch.Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        state = {name: value.bfloat16() for name, value in loaded.model.state_dict().items()}
        loaded.model.save_pretrained(folder, state_dict=state)
        loaded.tokenizer.save_pretrained(folder)
        save_file({"ids": rows.cpu()}, Path(folder) / "calibration.safetensors")
        command = [sys.executable, "-m", "factpatch.delivery.awq", folder, str(group)]
        offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=offline)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise InputError(f"this model could not be quantized by awq: {last}; leave it out of serving.formats")
        return load_file(Path(folder) / "served.safetensors")


def group_size(loaded: LoadedModel) -> int:
    """How many numbers share a scale: 128, or as many as every matrix's width allows; -1 for a whole row."""
    _, blocks = decoder_blocks(loaded.model)
    widths = {sizes(module)[0] for module in blocks.modules() if is_projection(module)}
    return next((group for group in GROUPS if all(width % group == 0 for width in widths)), -1)
