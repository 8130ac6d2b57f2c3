"""A model larger than memory, edited: random bf16 weights on disk, streamed in a process that may not hold them.

    python -m benchmarks.streaming --tokenizer MODEL --folder /big/disk
    python -m benchmarks.streaming --tokenizer MODEL --folder /big/disk --width 1024 --inner 4096 --layers 24 --limit 1

The first is a Llama of 3.1 billion weights (6.2 GB of shards, a block each, written one by one and removed at the end),
edited at three quarters of its depth by 200 rows, in 3 GB. The limit is RLIMIT_DATA (`ulimit -d`): all memory that the
process takes for itself, without the code of libraries, and without the files that the system caches. Beside it stands
the same run with all weights in memory. Both are the whole step of `factpatch edit`: preflight, hashing, frozen layers,
training, patch and certificate; the two patches are compared. What a pass reads is measured apart.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, LlamaConfig

from benchmarks.made_rows import made_rows
from factpatch.editing import encode_edits
from factpatch.edits.accepted import read_accepted
from factpatch.files import digest_file, read_json, write_json, write_jsonl
from factpatch.frozen_trunk.capture import capture
from factpatch.frozen_trunk.opening import make_plan
from factpatch.models.loading import load_model
from factpatch.models.locations import locate
from factpatch.models.placement import stream_of
from factpatch.preflight.machine import peak_memory
from factpatch.settings.config import Settings, load_settings
from tasks.edit import edit
from tasks.validate import validate

GB = 10**9
PLAIN = {
    "training.preservation.neighbours": 0,
    "training.preservation.prompts": None,
    "training.augmentation.wordings": 0,
    "gates.canaries": None,
}
STANDARD_DEVIATION, HEAD = 0.02, 128  # of the weights; width of an attention head


def write_model(folder: Path, args: argparse.Namespace) -> int:
    """Write a Llama of that shape, a shard for each block and one for the rest, never more than that in memory; bytes
    of all shards."""
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    keys, heads = max(1, args.width // 384) * HEAD, args.width // HEAD * HEAD
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=args.width,
        intermediate_size=args.inner,
        num_hidden_layers=args.layers,
        num_attention_heads=heads // HEAD,
        num_key_value_heads=keys // HEAD,
        head_dim=HEAD,
        tie_word_embeddings=False,
        dtype="bfloat16",
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        architectures=["LlamaForCausalLM"],
    )
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    block = {
        "self_attn.q_proj": (heads, args.width),
        "self_attn.k_proj": (keys, args.width),
        "self_attn.v_proj": (keys, args.width),
        "self_attn.o_proj": (args.width, heads),
        "mlp.gate_proj": (args.inner, args.width),
        "mlp.up_proj": (args.inner, args.width),
        "mlp.down_proj": (args.width, args.inner),
        "input_layernorm": (args.width,),
        "post_attention_layernorm": (args.width,),
    }
    rest = {
        "model.embed_tokens": (len(tokenizer), args.width),
        "lm_head": (len(tokenizer), args.width),
        "model.norm": (args.width,),
    }
    parts = [{f"model.layers.{layer}.{name}": shape for name, shape in block.items()} for layer in range(args.layers)]
    generator, size = torch.Generator().manual_seed(0), 0
    places: dict[str, str] = {}
    for number, part in enumerate([*parts, rest], start=1):
        file = f"model-{number:05}-of-{args.layers + 1:05}.safetensors"
        tensors = {f"{name}.weight": _random(shape, generator) for name, shape in part.items()}
        save_file(tensors, folder / file, {"format": "pt"})
        places |= dict.fromkeys(tensors, file)
        size += sum(tensor.nbytes for tensor in tensors.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": places})
    return size


def _random(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """A matrix of random numbers, or the ones of a norm."""
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    return torch.empty(shape, dtype=torch.bfloat16).normal_(0, STANDARD_DEVIATION, generator=generator)


def settings_for(folder: Path, placement: str, args: argparse.Namespace) -> Settings:
    """Of the edit run."""
    overrides = {
        "model.path": str(folder / "model"),
        "model.dtype": "bfloat16",
        "model.placement": placement,
        "edits.path": str(folder / "rows.jsonl"),
        "localization.location": f"{3 * args.layers // 4}:mlp.down_proj",
        "trunk.folder": str(folder / f"trunk-{placement}"),
        "trunk.memory_gb": 0.25,
        "evaluation.cache": None,
        "training.epochs": args.epochs,
    }
    return load_settings(None, overrides | PLAIN)


def run_case(placement: str, args: argparse.Namespace) -> None:
    """The edit step in this process, within the limit; prints what it took as JSON."""
    limit = int((args.limit if placement == "stream" else args.memory_limit) * GB)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    settings, output = settings_for(args.folder, placement, args), args.folder / f"run-{placement}"
    shutil.copytree(args.folder / "run", output)
    before, start = _read_bytes(), time.perf_counter()
    edit.fn(str(output), settings)
    seconds = time.perf_counter() - start
    found = read_json(output / "edit.json")
    print(
        json.dumps(
            {
                "seconds": seconds,
                "peak": peak_memory("cpu"),
                "read": _read_bytes() - before,
                "told": found["preflight"]["read_bytes"],
                "told_memory": found["preflight"]["host_bytes"],
                "patch": digest_file(output / "patch" / "patch.safetensors"),
            }
        )
    )


def run_pass(args: argparse.Namespace) -> None:
    """One pass of all rows through the frozen blocks; prints what it read beside the size of these."""
    loaded = load_model(settings_for(args.folder, "stream", args).model)
    location = locate(loaded.model, f"{3 * args.layers // 4}:mlp.down_proj")
    rows = encode_edits(loaded, read_accepted(args.folder / "run"), False)
    plan, stream = make_plan(loaded, location, rows), stream_of(loaded.model)
    assert plan is not None
    assert stream is not None
    passed = stream.blocks[: location.layer + 1]
    size = sum(loaded.model.get_parameter(name).nbytes for names in passed for name in names)
    before, start = stream.bytes_read, time.perf_counter()
    capture(loaded, [plan], rows)
    print(json.dumps({"read": stream.bytes_read - before, "size": size, "seconds": time.perf_counter() - start}))


def _read_bytes() -> int:
    """Bytes that this process read from files so far."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("rchar")).split()[1])


def in_own_process(case: str, args: argparse.Namespace) -> dict[str, float]:
    """What a case prints that runs alone."""
    own = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "1048576"}  # what is freed is free at once
    command = [sys.executable, "-m", "benchmarks.streaming", *sys.argv[1:], "--case", case]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | own, check=False)
    if done.returncode:
        sys.exit(f"{case}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, help="a model folder whose tokenizer is taken")
    parser.add_argument("--folder", type=Path, required=True, help="new folder for all that is written; removed again")
    parser.add_argument("--width", type=int, default=3072)
    parser.add_argument("--inner", type=int, default=8192)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--edits", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--limit", type=float, default=3.0, help="GB of the streamed run")
    parser.add_argument("--memory-limit", type=float, default=16.0, help="GB of the run with the weights in memory")
    parser.add_argument("--case", choices=["stream", "memory", "pass"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        run_pass(args) if args.case == "pass" else run_case(args.case, args)
        return
    if args.folder.exists():
        sys.exit(f"{args.folder} is there already; name a new folder")
    try:
        size = write_model(args.folder / "model", args)
        write_jsonl(args.folder / "rows.jsonl", made_rows(args.edits))
        validate.fn(str(args.folder / "run"), settings_for(args.folder, "stream", args))
        print(f"{size / GB:.2f} GB of shards, {args.edits} edits", flush=True)
        one = in_own_process("pass", args)
        share = one["read"] / one["size"]
        print(f"a pass through the frozen blocks reads {share:.3f} of their size, {one['seconds']:.1f} s", flush=True)
        found = {}
        for case, limit in (("stream", args.limit), ("memory", args.memory_limit)):
            found[case] = own = in_own_process(case, args)
            print(
                f"{case} within {limit:g} GB: {own['seconds']:.1f} s, peak {own['peak'] / GB:.2f} GB (told "
                f"{own['told_memory'] / GB:.2f}), read {own['read'] / GB:.2f} GB (told {own['told'] / GB:.2f})",
                flush=True,
            )
        same = found["stream"]["patch"] == found["memory"]["patch"]
        ratio = found["stream"]["seconds"] / found["memory"]["seconds"]
        print(f"streamed over in memory: {ratio:.2f} of the time; {'the same patch' if same else 'another patch'}")
    finally:
        shutil.rmtree(args.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
