"""What 1,000, 10,000 and 100,000 edits cost: seconds and peak memory of every part, on a model of random weights.

    python -m benchmarks.scale --folder runs/scale                   # 1,000
    python -m benchmarks.scale --folder runs/scale --edits 1000 10000 100000

Rows are made by number (distinct subjects, seven relations, two paraphrases each), and so is the model: a Llama of
width 1,024 and 8 layers with a byte-level BPE learnt on the rows' own parts. It knows nothing, so preservation is off,
and what is measured is how many edits a location holds and how costs grow. Each part runs in a process of its own: the
step as the release runs it. All stays in the folder, the trunk's activations for as long as a size takes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.made_rows import made_rows
from data.world.vocabulary import learn
from factpatch.files import new_folder, read_json, write_jsonl
from factpatch.preflight.machine import peak_memory
from factpatch.settings.config import Settings, load_settings
from tasks.edit import edit
from tasks.evaluate import evaluate
from tasks.localize import localize
from tasks.validate import validate

STEPS: dict[str, Callable[[str, Settings], str]] = {
    "validate": validate.fn,
    "localize": localize.fn,
    "edit": edit.fn,
    "evaluate": evaluate.fn,
}
PLAIN = {
    "training.preservation.prompts": None,
    "training.preservation.neighbours": 0,
    "training.augmentation.wordings": 1,
    "evaluation.make_probes": False,
    "evaluation.max_new_tokens": 12,
    "evaluation.cache": None,
    "gates.canaries": None,
}
VOCABULARY_ROWS = 2000  # rows that the tokenizer is learnt on


def write_model(folder: Path, args: argparse.Namespace) -> None:
    """Random weights, seeded, with a tokenizer for the rows."""
    rows = made_rows(VOCABULARY_ROWS)
    tokenizer = learn([text for row in rows for text in (row["prompt"], row["target"], *row["paraphrases"])], size=8192)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=args.width,
        intermediate_size=4 * args.width,
        num_hidden_layers=args.layers,
        num_attention_heads=max(1, args.width // 64),
        num_key_value_heads=max(1, args.width // 64),
        max_position_embeddings=128,
        initializer_range=0.05,  # at the usual 0.02 so narrow a model cannot give a token more than a fifth
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with new_folder(folder) as temporary:
        LlamaForCausalLM(config).save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


def settings_for(count: int, args: argparse.Namespace) -> Settings:
    """Of a run with so many edits."""
    return load_settings(
        None,
        {
            "model.path": str(args.folder / "model"),
            "model.placement": "memory",
            "edits.path": str(args.folder / f"rows-{count}.jsonl"),
            "localization.location": args.location or f"{args.layers - 1}:mlp",
            "trunk.folder": str(args.folder / "trunk"),
            "training.epochs": args.epochs,
        }
        | PLAIN,
    )


def run_step(name: str, count: int, args: argparse.Namespace) -> None:
    """A step in this process; prints its seconds and peak memory as JSON."""
    settings, start = settings_for(count, args), time.perf_counter()
    STEPS[name](str(args.folder / str(count)), settings)
    print(json.dumps({"seconds": time.perf_counter() - start, "peak": peak_memory("cpu")}))


def in_own_process(name: str, count: int) -> dict[str, float]:
    """What a step prints that runs alone."""
    command = [sys.executable, "-m", "benchmarks.scale", *sys.argv[1:], "--step", name, "--count", str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(count: int, args: argparse.Namespace) -> None:
    """All steps with so many edits, a line each, and what came of them."""
    write_jsonl(args.folder / f"rows-{count}.jsonl", made_rows(count))
    shutil.rmtree(args.folder / str(count), ignore_errors=True)
    for name in STEPS:
        own = in_own_process(name, count)
        each = 1000 * own["seconds"] / count
        print(f"{count} | {name} | {own['seconds']:.1f} s | {each:.1f} ms an edit | {own['peak'] / 2**20:.0f} MB")
    shutil.rmtree(args.folder / "trunk", ignore_errors=True)
    trained, measured = (read_json(args.folder / str(count) / f"{name}.json") for name in ("edit", "evaluate"))
    shares = ", ".join(f"{name} {measured[name]['value']:.3f}" for name in ("reliability", "generalization"))
    size = sum(file.stat().st_size for file in (args.folder / str(count)).rglob("*") if file.is_file())
    print(f"{count} | {shares}, {trained['epochs']} epochs, {size / 2**20:.1f} MB of output", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--edits", type=int, nargs="+", default=[1000])
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--location", help="default: the MLP of the last layer")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        run_step(args.step, args.count, args)
        return
    args.folder.mkdir(parents=True, exist_ok=True)
    if not (args.folder / "model").exists():
        write_model(args.folder / "model", args)
    print("edits | part | time | cost | peak memory")
    for count in args.edits:
        measure(count, args)


if __name__ == "__main__":
    main()
