"""How fast a device multiplies, writes memory and reads files: measured, or named for one that is not at hand."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from factpatch.errors import InputError
from factpatch.preflight.machine import matrix_rate, memory_rate

READ_RATE = 1e9  # bytes a second that weights are read with, where nobody says


@dataclass(frozen=True)
class DeviceRates:
    """Operations of matrix products a second (a multiplication and an addition are two), bytes of memory written, and
    bytes read from files."""

    matrix: float
    memory: float
    reading: float = READ_RATE


def measured_rates(device: str, dtype: torch.dtype) -> DeviceRates:
    """Those of a device of this machine, as busy as it is."""
    return DeviceRates(matrix_rate(device, dtype), memory_rate(device))


def named_rates(text: str) -> DeviceRates:
    """The rates that a text names: `MATRIX,MEMORY` or `MATRIX,MEMORY,READING`, such as `400e12,2e12,5e9`."""
    try:
        numbers = [float(part) for part in text.split(",")]
        if not 2 <= len(numbers) <= 3 or min(numbers) <= 0:
            raise ValueError
    except ValueError as error:
        raise InputError(
            f"device rates '{text}': write MATRIX,MEMORY,READING as operations, bytes and bytes a second, such as "
            "400e12,2e12,5e9"
        ) from error
    return DeviceRates(*numbers)
