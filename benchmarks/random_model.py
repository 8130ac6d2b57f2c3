"""Save a Llama of 20 M random weights, the substrate for edit sets larger than the reference model holds.

    python -m benchmarks.random_model --output runs/random-model

Width 384, 6 layers, an 8,192-token byte-level BPE learnt on the world's text; seeded, so two calls save equal models.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from data.world.corpus import vocabulary_texts
from data.world.vocabulary import CONTEXT, learn
from factpatch.files import new_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/random-model"))
    parser.add_argument("--seed", type=int, default=0)
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
        initializer_range=0.02,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    with new_folder(args.output) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    print(f"{args.output}: {model.num_parameters() / 1e6:.1f} M parameters, {len(tokenizer)} tokens")


if __name__ == "__main__":
    main()
