"""The K types of GGUF (Q4_K, Q5_K, Q6_K) written from floats, as llama.cpp does without an importance matrix; `gguf`
itself only reads them.

A super-block of 256 values has one scale (and one for minima) in half precision, and 8 or 16 blocks with small integers
that multiply it. Scales are searched for by least squares around the plain one.
"""

from __future__ import annotations

import numpy as np

SUPER = 256  # values of a super-block


def quantize_q4_k(rows: np.ndarray) -> np.ndarray:
    """Bytes of rows whose length is a multiple of 256."""
    head, levels = _with_minima(rows, 15, np.arange(21) * 0.1 - 1.0)
    return _joined(rows, head, _nibbles(levels))


def quantize_q5_k(rows: np.ndarray) -> np.ndarray:
    """Bytes of rows whose length is a multiple of 256."""
    head, levels = _with_minima(rows, 31, np.arange(16) * 0.1 - 0.5)
    high = ((levels >> 4) << np.arange(8, dtype=np.uint8)[:, None]).sum(1, dtype=np.uint8)
    return _joined(rows, head, high, _nibbles(levels & 15))


def quantize_q6_k(rows: np.ndarray) -> np.ndarray:
    """Bytes of rows whose length is a multiple of 256."""
    values = rows.reshape(-1, 16, 16).astype(np.float32)
    scales = _symmetric_scales(values)
    largest = np.take_along_axis(scales, np.abs(scales).argmax(-1)[:, None], -1)
    whole = _half(-largest / 128)
    small = np.clip(np.rint(_over(scales, whole.astype(np.float32))), -128, 127)
    levels = np.clip(np.rint(_over(values, (whole * small)[..., None])), -32, 31) + 32
    levels = levels.astype(np.uint8).reshape(-1, 2, 4, 32)
    nibbles = levels.reshape(-1, 2, 2, 64) & 15
    low = nibbles[:, :, 0] | (nibbles[:, :, 1] << 4)
    high = ((levels >> 4) << (2 * np.arange(4, dtype=np.uint8))[:, None]).sum(2, dtype=np.uint8)
    return _joined(rows, low, high, small.astype(np.int8).view(np.uint8), whole.view(np.uint8))


def _with_minima(rows: np.ndarray, most: int, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The head of each super-block (scale, scale of minima, both as integers a block) and levels from 0 to `most`."""
    values = rows.reshape(-1, 8, 32).astype(np.float32)
    scales, minima = _scales_and_minima(values, most, steps)
    whole, whole_minima = (_half(found.max(-1, keepdims=True) / 63) for found in (scales, minima))
    small, small_minima = (
        np.clip(np.rint(_over(found, top.astype(np.float32))), 0, 63).astype(np.uint8)
        for found, top in ((scales, whole), (minima, whole_minima))
    )
    step, least = (
        (top.astype(np.float32) * found)[..., None] for top, found in ((whole, small), (whole_minima, small_minima))
    )
    levels = np.clip(np.rint(_over(values + least, step)), 0, most).astype(np.uint8)
    packed = [
        small[:, :4] | (small[:, 4:] >> 4 << 6),
        small_minima[:, :4] | (small_minima[:, 4:] >> 4 << 6),
        (small[:, 4:] & 15) | (small_minima[:, 4:] & 15) << 4,
    ]
    return np.concatenate([whole.view(np.uint8), whole_minima.view(np.uint8), *packed], axis=-1), levels


def _scales_and_minima(values: np.ndarray, most: int, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per block the scale and the minimum below zero (its size) that give values best, by weighted least squares;
    larger values weigh more."""
    weights = np.sqrt(np.square(values).mean(-1, keepdims=True)) + np.abs(values)
    least = np.minimum(values.min(-1, keepdims=True), 0)
    span = values.max(-1, keepdims=True) - least
    scale, minimum = span / most, least
    error = _error(values, weights, np.clip(np.rint(_over(values - least, scale)), 0, most), scale, minimum)
    total, summed = weights.sum(-1, keepdims=True), (weights * values).sum(-1, keepdims=True)
    for step in steps:
        levels = np.clip(np.rint((values - least) * _over(most + np.float32(step), span)), 0, most)
        weighted = weights * levels
        once, twice = weighted.sum(-1, keepdims=True), (weighted * levels).sum(-1, keepdims=True)
        mixed = (weighted * values).sum(-1, keepdims=True)
        slope = _over(total * mixed - summed * once, total * twice - once**2)
        offset = _over(twice * summed - once * mixed, total * twice - once**2)
        slope, offset = np.where(offset > 0, _over(mixed, twice), slope), np.minimum(offset, 0)
        found = _error(values, weights, levels, slope, offset)
        better = (found < error) & (slope > 0)
        scale, minimum = np.where(better, slope, scale), np.where(better, offset, minimum)
        error = np.where(better, found, error)
    return scale[..., 0], -minimum[..., 0]


def _symmetric_scales(values: np.ndarray) -> np.ndarray:
    """Per block the scale by which integers from -32 to 31 give its values best; larger values weigh more."""
    weights = np.square(values)
    largest = np.take_along_axis(values, np.abs(values).argmax(-1)[..., None], -1)
    best, scale = np.full(values.shape[:-1], -1.0, dtype=np.float32), np.zeros(values.shape[:-1], dtype=np.float32)
    for step in (0, *(step for step in range(-9, 10) if step)):
        levels = np.clip(np.rint(values * _over(np.float32(-32 - 0.1 * step), largest)), -32, 31)
        mixed, twice = (weights * values * levels).sum(-1), (weights * levels * levels).sum(-1)
        gained = _over(mixed**2, twice)
        scale = np.where(gained > best, _over(mixed, twice), scale)
        best = np.maximum(best, gained)
    return scale


def _error(
    values: np.ndarray, weights: np.ndarray, levels: np.ndarray, scale: np.ndarray, offset: np.ndarray
) -> np.ndarray:
    return (weights * np.square(scale * levels + offset - values)).sum(-1, keepdims=True)


def _over(above: np.ndarray | np.floating, below: np.ndarray) -> np.ndarray:
    """The quotient, and 0 where nothing is below."""
    below = np.asarray(below, dtype=np.float32)
    return np.where(below == 0, np.float32(0), above / np.where(below == 0, np.float32(1), below))


def _half(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16)


def _nibbles(levels: np.ndarray) -> np.ndarray:
    """Two levels a byte: those of one block beside those of the next."""
    pairs = levels.reshape(-1, 4, 2, 32)
    return pairs[:, :, 0] | (pairs[:, :, 1] << 4)


def _joined(rows: np.ndarray, *parts: np.ndarray) -> np.ndarray:
    """Super-blocks one after the other, as rows of bytes."""
    count = rows.size // SUPER
    blocks = np.concatenate([part.reshape(count, -1) for part in parts], axis=-1)
    return blocks.reshape(*rows.shape[:-1], -1)
