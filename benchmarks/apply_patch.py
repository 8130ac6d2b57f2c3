"""Seconds to apply a patch to a base model that is in memory already, and to undo it.

    python -m benchmarks.apply_patch [--width 896 --layers 24 --vocabulary 151936]

The model is a Llama of random bfloat16 weights, by default about as large as Qwen2.5-0.5B; the patch holds new values
of one layer's MLP. Both ways every tensor of the model is hashed first, so the time grows with the model.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from factpatch.config import Settings
from factpatch.models import LoadedModel, tensor_digests
from factpatch.patch import apply_patch, save_patch, undo_patch
from factpatch.structure import locate

RUNS = 3


def seconds(action: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description="Time to apply and undo a patch.")
    parser.add_argument("--width", type=int, default=896)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--vocabulary", type=int, default=151936)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    config = LlamaConfig(
        vocab_size=args.vocabulary,
        hidden_size=args.width,
        intermediate_size=args.width * 11 // 2,
        num_hidden_layers=args.layers,
        num_attention_heads=args.width // 64,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).requires_grad_(False).eval()
    loaded = LoadedModel(model, AutoTokenizer.from_pretrained("data/model"), "random", torch.bfloat16)
    location = locate(model, f"{args.layers - 2}:mlp")
    values = {name: torch.randn_like(model.get_parameter(name)) for name in location.parameters}
    before = tensor_digests(model)
    with tempfile.TemporaryDirectory() as folder:
        patch = save_patch(Path(folder) / "patch", loaded, location, values, Settings(), {}, {})
        times = [(seconds(lambda: apply_patch(model, patch)), seconds(lambda: undo_patch(model, patch)))
                 for _ in range(RUNS)]  # fmt: skip
        size = sum(file.stat().st_size for file in patch.iterdir())
    assert tensor_digests(model) == before
    applied, undone = (min(column) for column in zip(*times, strict=True))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{parameters / 1e6:.0f} M parameters, patch of {size / 2**20:.0f} MB: applied in {applied:.2f} s, undone in "
        f"{undone:.2f} s (least of {RUNS})"
    )


if __name__ == "__main__":
    main()
