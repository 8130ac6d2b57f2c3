"""Values in the types of GGUF files: written, and as they are read back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import gguf
import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from factpatch.delivery.k_quants import quantize_q4_k, quantize_q5_k, quantize_q6_k
from factpatch.errors import InputError

K_TYPES = {
    GGMLQuantizationType.Q4_K: quantize_q4_k,
    GGMLQuantizationType.Q5_K: quantize_q5_k,
    GGMLQuantizationType.Q6_K: quantize_q6_k,
}
WRITTEN = ("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0")
CHUNK_VALUES = 2**16  # quantized at once, so that all copies stay in the cache while scales are searched for


def named_type(name: str) -> GGMLQuantizationType:
    """The type that users name, such as `q8_0`; InputError if it cannot be written."""
    if name.upper() not in WRITTEN:
        raise InputError(f"--type {name} is none that can be written; name one of {', '.join(WRITTEN).lower()}")
    return GGMLQuantizationType[name.upper()]


def quantize(values: np.ndarray, kind: GGMLQuantizationType, what: str) -> np.ndarray:
    """The bytes of float32 values in a type; InputError, naming `what`, if it cannot be written or not in its rows."""
    if kind.name not in WRITTEN:
        raise InputError(f"{what} is {kind.name}, which cannot be written; name another with --type, such as q8_0")
    block, _ = GGML_QUANT_SIZES[kind]
    if values.shape[-1] % block:
        raise InputError(
            f"{what} has rows of {values.shape[-1]}, which {kind.name} cannot hold; try --type q8_0 or f16"
        )
    rows = np.ascontiguousarray(values, dtype=np.float32)
    count = max(1, CHUNK_VALUES // rows.shape[-1])
    flat = rows.reshape(-1, rows.shape[-1])
    starts = range(0, len(flat), count)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # numpy works outside the interpreter's lock
        parts = list(pool.map(lambda start: _quantize(flat[start : start + count], kind), starts))
    return np.concatenate(parts).reshape(*rows.shape[:-1], -1)


def dequantize(content: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """The values that bytes of a type stand for."""
    return np.asarray(gguf.quants.dequantize(content, kind), dtype=np.float32)


def rounded(values: np.ndarray, kind: GGMLQuantizationType, what: str) -> np.ndarray:
    """Values as a file of that type gives them back."""
    return dequantize(quantize(values, kind, what), kind)


def _quantize(rows: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    if kind in K_TYPES:
        return K_TYPES[kind](rows)
    return gguf.quants.quantize(rows, kind).view(np.uint8)
