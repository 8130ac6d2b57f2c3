"""What edits in a model of Qwen2.5-72B's shape would take on a card named by its rates: no weights, no card.

    python -m benchmarks.dry_run --tokenizer MODEL --device-rates 400e12,2e12,5e9 --edits 1000 100000

The folder that it estimates holds a configuration alone, and the tokenizer of a model at hand (rows are a little longer
or shorter than the real one makes them). Rows are made by number; they are trained as by default, with wordings and
neighbours, and plainly.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import AutoTokenizer, Qwen2Config

from benchmarks.made_rows import made_rows
from factpatch.edits.request import EditRequest
from factpatch.preflight.dry_run import describe_dry_run, dry_run
from factpatch.preflight.rates import named_rates
from factpatch.settings.config import load_settings

PLAIN = {
    "training.preservation.neighbours": 0,
    "training.preservation.prompts": None,
    "training.augmentation.wordings": 0,
    "gates.canaries": None,
}


def write_shape(folder: Path, tokenizer_path: str) -> None:
    """Qwen2.5-72B's configuration, and a tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_path)
    Qwen2Config(
        vocab_size=152064,
        hidden_size=8192,
        intermediate_size=29568,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        tie_word_embeddings=False,
        dtype="bfloat16",
        eos_token_id=tokenizer.eos_token_id,
        architectures=["Qwen2ForCausalLM"],
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, help="a model folder whose tokenizer is taken")
    parser.add_argument("--device-rates", default="400e12,2e12,5e9")
    parser.add_argument("--location", default="60:mlp.down_proj")
    parser.add_argument("--edits", type=int, nargs="+", default=[1000, 100_000])
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        write_shape(Path(folder), args.tokenizer)
        own = {"model.path": folder, "model.dtype": "bfloat16", "model.device": "cuda"}
        for count in args.edits:
            rows = made_rows(count)
            edits = [EditRequest(row["id"], row["prompt"], row["target"], subject=row["subject"]) for row in rows]
            for name, plain in (("plain", PLAIN), ("with wordings and neighbours", {})):
                print(f"{name}:")
                for needed in dry_run(
                    load_settings(None, own | plain), edits, args.location, named_rates(args.device_rates)
                ):
                    print("\n".join(describe_dry_run(needed, count, "cuda")), flush=True)


if __name__ == "__main__":
    main()
