"""What edits cost on a model of 8 billion parameters: seconds of every part, memory, and the share of the matrix rate.

    python -m benchmarks.large_model counterfact_3k.json --tokenizer MODEL --edits 1000 --device cuda

The model is a Llama of the shape of 8B with random bf16 weights, written by the benchmark; costs hang on shapes alone,
what it answers means nothing. The step size is the one that a run finds by itself. `--shape small` tries the script.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from benchmarks.counterfact import read_edits
from factpatch.editing import encode_edits, run_edit
from factpatch.evaluation.generation import verify
from factpatch.frozen_trunk import open_rows
from factpatch.frozen_trunk.plan import positions
from factpatch.methods.learning_rate import with_step_size
from factpatch.models.loading import load_model, preserved, write_values
from factpatch.models.locations import locate
from factpatch.preflight.workload import shape_of
from factpatch.settings.config import load_settings

SHAPES = {
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "small": {
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}
PLAIN = {
    "preservation.neighbours": 0.0,
    "preservation.prompts": None,
    "augmentation.wordings": 0,
    "augmentation.both_forms": False,
    "whitening": None,
}
SIDE, TIMES = 8192, 20  # of the square matrices whose product gives the matrix rate
Found = TypeVar("Found")


def write_model(folder: Path, tokenizer_path: str, shape: str, device: str) -> None:
    """Random weights of that shape in bf16 shards, with the tokenizer of a model at hand."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_path)
    torch.manual_seed(0)
    with torch.device(device):
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SHAPES[shape])).to(torch.bfloat16)
    model.generation_config.eos_token_id = model.config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder, max_shard_size="4GB")
    tokenizer.save_pretrained(folder)


def matrix_rate(device: str, side: int) -> float:
    """Multiplications and additions a second of a large bf16 product."""
    left, right = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        left @ right
    _wait(device)
    start = time.perf_counter()
    for _ in range(TIMES):
        left @ right
    _wait(device)
    return TIMES * 2 * side**3 / (time.perf_counter() - start)


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", help="the data set's file")
    parser.add_argument("--tokenizer", required=True, help="a model folder whose tokenizer is taken")
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--edits", type=int, default=1000)
    parser.add_argument("--location", default="22:mlp.down_proj")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()

    def timed(label: str, work: Callable[[], Found]) -> Found:
        start = time.perf_counter()
        found = work()
        _wait(args.device)
        print(f"{label}: {time.perf_counter() - start:.1f} s", flush=True)
        return found

    with TemporaryDirectory() as folder:
        timed("write the model", lambda: write_model(Path(folder), args.tokenizer, args.shape, args.device))
        overrides = {"model.path": folder, "model.device": args.device, "model.dtype": "bfloat16"}
        overrides |= {"trunk.folder": None, **{f"training.{name}": value for name, value in PLAIN.items()}}
        settings = load_settings(None, overrides)
        loaded = timed("load it", lambda: load_model(settings.model))
        place = locate(loaded.model, args.location)
        edits = read_edits(args.rows, args.edits, 0)
        rows = encode_edits(loaded, edits, False)
        step = with_step_size(settings.training, loaded.model, place).step_size
        short = replace(settings, training=replace(settings.training, epochs=1, revisit=False, stop_loss=0.0))
        timed("warm up", lambda: run_edit(loaded, place, edits[:64], short))
        once = time.perf_counter()
        run_edit(loaded, place, edits, short)
        _wait(args.device)
        once = time.perf_counter() - once
        print(f"frozen layers and one epoch: {once:.1f} s", flush=True)
        start = time.perf_counter()
        result = run_edit(loaded, place, edits, settings)
        _wait(args.device)
        seconds = time.perf_counter() - start
        with preserved(loaded.model, place.parameters):
            write_values(loaded.model, result.values)
            with open_rows(loaded, place, rows, settings.trunk) as opened:
                verdicts = timed("verify", lambda: verify(loaded, opened, 32, 64))
        right = sum(verdict.answer is not None for verdict in verdicts)
        shape = shape_of(loaded.model, place, True)
        run = sum(positions(row, shape.layout) for row in rows) * (shape.head + shape.back)
        predicted = sum(len(row.ids) - row.prompt_length for row in rows) * 2 * shape.width * shape.vocabulary
        products = result.visits / len(rows) * (run + predicted)
        rate = matrix_rate(args.device, SIDE if args.device.startswith("cuda") else 1024)
        epochs = len(result.losses)
        print(
            f"training: {seconds:.1f} s, {epochs} epochs, {result.visits} visits, step size {step:g}, {result.engine}"
        )
        print(f"an epoch after the first: {(seconds - once) / max(1, epochs - 1):.2f} s")
        print(f"edits a second: {len(edits) / seconds:.1f}; proven: {right} of {len(edits)}")
        print(f"share of the matrix rate ({rate / 1e12:.0f} TFLOP/s): {2 * products / seconds / rate:.1%}")
        if args.device.startswith("cuda"):
            print(f"peak memory: {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


if __name__ == "__main__":
    main()
