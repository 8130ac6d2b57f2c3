"""Quantizes a model folder to 4 bits by GPTQ or AWQ.

It is a process of its own, as the libraries that do it change transformers, torch's settings and random numbers:

    python -m factpatch.delivery.quantizer gptq FOLDER GROUP

`calibration.safetensors` in the folder holds rows of ids; `served.safetensors` is left there, with what the quantized
checkpoint gives back for every parameter.
"""

from __future__ import annotations

import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

ROWS_AT_ONCE = 8


def main() -> None:
    """Quantize the folder that the command line names."""
    method, folder, group = sys.argv[1:]
    rows = load_file(f"{folder}/calibration.safetensors")["ids"]
    save_file({"gptq": gptq, "awq": awq}[method](folder, rows, int(group)), f"{folder}/served.safetensors")


def gptq(folder: str, rows: torch.Tensor, group: int) -> dict[str, torch.Tensor]:
    """GPTQ (arXiv 2210.17323) by Intel's neural-compressor: symmetric, block by block, each on what the quantized
    blocks before it write."""
    from neural_compressor.torch.quantization import GPTQConfig, convert, prepare  # of an extra

    model = _load(folder)
    names = [name for name, _ in model.named_parameters()]
    made = prepare(model, GPTQConfig(bits=4, use_sym=True, group_size=group, model_path=folder))
    for part in rows.split(ROWS_AT_ONCE):
        made(part)
    made = convert(made)
    packed = {name: module.recover() for name, module in made.named_modules() if hasattr(module, "recover")}
    values = {f"{name}.weight": value for name, value in packed.items()}
    return {name: values[name] if name in values else made.get_parameter(name).detach() for name in names}


def awq(folder: str, rows: torch.Tensor, group: int) -> dict[str, torch.Tensor]:
    """AWQ (arXiv 2306.00978) by Intel's auto-round: with zero points; norms take up the scales of what reads them."""
    from auto_round import AutoRound  # of an extra
    from auto_round.algorithms.quantization.rtn.config import RTNConfig

    rounding = RTNConfig(bits=4, group_size=group, sym=False)
    samples = {"dataset": list(rows[:, None]), "nsamples": len(rows), "seqlen": rows.shape[1]}
    tokenizer = AutoTokenizer.from_pretrained(folder)
    quantizing = AutoRound(_load(folder), tokenizer, alg_configs=["awq", rounding], **samples)
    made, _ = quantizing.quantize()
    return {name: value.detach().contiguous() for name, value in made.named_parameters()}


def _load(folder: str) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model


if __name__ == "__main__":
    main()
