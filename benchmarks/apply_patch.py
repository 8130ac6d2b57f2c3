"""Seconds and memory to copy a base model with a patch applied, and to undo it in another copy.

    python -m benchmarks.apply_patch [--width 896 --layers 24 --vocabulary 151936]

The model is a Llama of random bfloat16 weights in parts of 500 MB, by default about as large as Qwen2.5-0.5B; the patch
holds new values of one layer's MLP. Each copy is made by a process of its own, whose memory beyond the imports counts.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from factpatch.files import digest_file
from factpatch.models.loading import load_model
from factpatch.models.locations import locate
from factpatch.patches.patch import save_patch
from factpatch.settings.config import ModelSettings, Settings

RUNS = 3
COPY = """
import re, shutil, sys, time
from pathlib import Path
from factpatch.patches import patch
from factpatch.settings.config import ModelSettings

def peak():  # of this process alone; getrusage counts the one that started it
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

shutil.rmtree(sys.argv[4], ignore_errors=True)
before, start = peak(), time.perf_counter()
getattr(patch, sys.argv[1])(ModelSettings(path=sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
print(time.perf_counter() - start, peak() - before)
"""


def copy(way: str, source: Path, patch: Path, output: Path) -> tuple[float, float]:
    """Seconds, and MB of memory that the copy took."""
    command = [sys.executable, "-c", COPY, way, str(source), str(patch), str(output)]
    seconds, memory = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(seconds), float(memory)


def make_base(folder: Path, width: int, layers: int, vocabulary: int) -> int:
    """Save the model; its number of parameters."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=width * 11 // 2,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="500MB")
    AutoTokenizer.from_pretrained("data/model").save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description="Time and memory to apply and undo a patch.")
    parser.add_argument("--width", type=int, default=896)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--vocabulary", type=int, default=151936)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        base, patch, edited, restored = (Path(place) / name for name in ("base", "patch", "edited", "restored"))
        parameters = make_base(base, args.width, args.layers, args.vocabulary)
        loaded = load_model(ModelSettings(path=str(base), dtype="bfloat16"))
        location = locate(loaded.model, f"{args.layers - 2}:mlp")
        values = {name: torch.randn_like(loaded.model.get_parameter(name)) for name in location.parameters}
        save_patch(patch, loaded, location, values, Settings(), {}, {})
        del loaded
        applied = min(copy("export_patch", base, patch, edited) for _ in range(RUNS))
        undone = min(copy("export_undo", edited, patch, restored) for _ in range(RUNS))
        size = sum(file.stat().st_size for file in patch.iterdir())
        assert all(digest_file(file) == digest_file(restored / file.name) for file in base.iterdir())
    print(
        f"{parameters / 1e6:.0f} M parameters, patch of {size / 2**20:.0f} MB: applied in {applied[0]:.1f} s with "
        f"{applied[1]:.0f} MB of memory, undone in {undone[0]:.1f} s with {undone[1]:.0f} MB (least of {RUNS})"
    )


if __name__ == "__main__":
    main()
