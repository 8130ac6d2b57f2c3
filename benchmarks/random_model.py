"""Save a Llama of 20 M random weights, the substrate for edit sets larger than the reference model holds.

    python -m benchmarks.random_model --output runs/random-model
    python -m benchmarks.random_model --output runs/random-model --edits zsre.json --limit 1000

The second also writes edits into the last layer's MLP, by plain breadth-first training, and prints how many targets one
forward pass then proves to be the greedy answer.
Width 384, 6 layers, an 8,192-token byte-level BPE learnt on the world's text; seeded, so two calls save equal models.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from data.world.corpus import vocabulary_texts
from data.world.vocabulary import CONTEXT, learn
from factpatch.editing import encode_edits, run_edit
from factpatch.edits.accepted import read_accepted
from factpatch.evaluation.generation import verify
from factpatch.evaluation.intervals import share
from factpatch.files import new_folder
from factpatch.frozen_trunk import open_rows
from factpatch.models.loading import load_model, write_values
from factpatch.models.locations import locate
from factpatch.settings.config import load_settings
from tasks.validate import validate

PLAIN = {
    "training.learning_rate": 6e-3,
    "training.schedule": "constant",
    "training.batch_size": 50,
    "training.epochs": 20,
    "training.confidence": 0.6,
    "training.preservation.prompts": None,
    "training.preservation.neighbours": 0,
    "training.augmentation.wordings": 0,
    "training.augmentation.both_forms": False,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/random-model"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--edits", help="edit requests to write")
    parser.add_argument("--limit", type=int, default=1000)
    args = parser.parse_args()
    tokenizer = learn(vocabulary_texts(), size=8192)
    torch.manual_seed(args.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=384,
        intermediate_size=1536,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=CONTEXT,
        initializer_range=0.05,  # at the usual 0.02 so narrow a model cannot give a token more than a fifth
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    with new_folder(args.output) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    print(f"{args.output}: {model.num_parameters() / 1e6:.1f} M parameters, {len(tokenizer)} tokens")
    if args.edits:
        write_edits(str(args.output), args.edits, args.limit)


def write_edits(model: str, path: str, limit: int) -> None:
    """Train the first accepted edits and verify them."""
    settings = load_settings(None, {"model.path": model, "edits.path": path, "edits.limit": limit} | PLAIN)
    with tempfile.TemporaryDirectory() as folder:
        validate.fn(folder, settings)
        edits = read_accepted(folder)
    loaded = load_model(settings.model)
    location = locate(loaded.model, "5:mlp")
    start = time.perf_counter()
    result = run_edit(loaded, location, edits, settings)
    seconds = time.perf_counter() - start
    write_values(loaded.model, result.values)
    with open_rows(loaded, location, encode_edits(loaded, edits, False), settings.trunk) as rows:
        proven = [verdict.answer is not None for verdict in verify(loaded, rows, 32, 64)]
    found = share(proven, "there are no edits")
    print(
        f"{len(edits)} edits at {location.name}: {100 * found['value']:.1f} % proven "
        f"({100 * found['ci95'][0]:.1f}-{100 * found['ci95'][1]:.1f}), {len(result.losses)} epochs, {seconds:.0f} s"
    )


if __name__ == "__main__":
    main()
