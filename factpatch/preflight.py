"""Before an edit run: what it will take, what the machine has, and a refusal if the one does not fit the other."""

from __future__ import annotations

import time

import torch

SIDE = {"cpu": 1024, "cuda": 8192}  # of the square matrices multiplied to measure a machine
MEASURED = 0.2  # seconds that this goes on


def matrix_rate(device: torch.device | str, dtype: torch.dtype) -> float:
    """Operations a second (a multiplication and an addition are two) of a large matrix product; the best of some."""
    device = torch.device(device)
    side = SIDE.get(device.type, SIDE["cpu"])
    left, right = (torch.full((side, side), 1 / side, dtype=dtype, device=device) for _ in range(2))
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    best, end = float("inf"), None
    while end is None or time.perf_counter() < end:
        start = time.perf_counter()
        left @ right
        wait()
        if end is None:  # the first product also starts threads and libraries
            end = time.perf_counter() + MEASURED
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best
