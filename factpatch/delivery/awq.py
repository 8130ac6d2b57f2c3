"""Quantizes a model folder by AWQ (arXiv 2306.00978), 4 bits with zero points, through Intel's auto-round.

It is a process of its own, as auto-round changes transformers, torch's settings and random numbers:

    python -m factpatch.delivery.awq FOLDER GROUP

`calibration.safetensors` in the folder holds rows of ids; `served.safetensors` is left there, with what the quantized
checkpoint gives back for every parameter. Norms and projections take up the scales of what reads them.
"""

from __future__ import annotations

import sys

from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    """Quantize the folder that the command line names."""
    from auto_round import AutoRound  # of an extra; `factpatch doctor` looks for it
    from auto_round.algorithms.quantization.rtn.config import RTNConfig

    folder, group = sys.argv[1:]
    rows = load_file(f"{folder}/calibration.safetensors")["ids"]
    samples = {"dataset": list(rows[:, None]), "nsamples": len(rows), "seqlen": rows.shape[1]}
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    rounding = RTNConfig(bits=4, group_size=int(group), sym=False)
    made, _ = AutoRound(model, tokenizer, alg_configs=["awq", rounding], **samples).quantize()
    values = {name: value.detach().contiguous() for name, value in made.named_parameters()}
    save_file(values, f"{folder}/served.safetensors")


if __name__ == "__main__":
    main()
