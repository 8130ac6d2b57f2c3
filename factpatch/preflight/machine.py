"""What this machine has and how fast it is: memory, disk, matrix products."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage

import psutil
import torch

from factpatch.errors import InputError
from factpatch.models.memory import free_memory

MATRIX_SIDE = {"cpu": 1024, "cuda": 8192}  # of the square matrices multiplied to measure a machine
COPIED = {"cpu": 2**26, "cuda": 2**30}  # bytes
MEASURING_SECONDS = 0.2  # seconds that this goes on
clock = time.perf_counter  # what speeds are measured with


@dataclass(frozen=True)
class Available:
    """Free bytes: of the machine's memory, of the accelerator's (None without one), where the output goes, and where
    the trunk cache goes (None if it goes nowhere, or to the same disk as the output)."""

    memory: int
    accelerator: int | None
    output: int
    trunk: int | None


def available(device: str, output: str | Path, trunk: str | Path | None) -> Available:
    """What is free now."""
    memory = free_memory()
    accelerator = free_memory(device) if _is_cuda(device) else None
    output = _existing(output)
    other = _existing(trunk) if trunk is not None else output
    apart = other.stat().st_dev != output.stat().st_dev
    return Available(memory, accelerator, disk_usage(output).free, disk_usage(other).free if apart else None)


def check_device(device: str) -> None:
    """InputError if tensors cannot be put there."""
    try:
        torch.empty(1, device=torch.device(device))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"model.device '{device}' cannot be used ({reason}); cpu always can") from error


def process_memory() -> int:
    """Bytes that this process holds in the machine's memory now."""
    return psutil.Process().memory_info().rss


def peak_memory(device: str) -> int:
    """Most bytes held at once since the process began: by tensors on the accelerator, or else in memory."""
    if _is_cuda(device):
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage gives there holds the peak of the process that started this one
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def matrix_rate(device: torch.device | str, dtype: torch.dtype) -> float:
    """Operations a second of large matrix products, with the machine as busy as it is.

    A multiplication and an addition are two operations.
    """
    device = torch.device(device)
    side = MATRIX_SIDE.get(device.type, MATRIX_SIDE["cpu"])
    left, right = (torch.full((side, side), 1 / side, dtype=dtype, device=device) for _ in range(2))
    return 2 * side**3 / _seconds(lambda: left @ right, device)


def memory_rate(device: torch.device | str) -> float:
    """Bytes a second that are written to memory newly allocated, with the machine as busy as it is."""
    device = torch.device(device)
    source = torch.zeros(COPIED.get(device.type, COPIED["cpu"]), dtype=torch.uint8, device=device)
    return source.nbytes / _seconds(source.clone, device)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long it takes, on average over a while: a busy machine is slow for the run too."""
    _run(work, device)  # the first time also starts threads and libraries
    times, start = 0, clock()
    while clock() - start < MEASURING_SECONDS:
        _run(work, device)
        times += 1
    return (clock() - start) / times


def _run(work: Callable[[], object], device: torch.device) -> None:
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _is_cuda(device: str) -> bool:
    return torch.device(device).type == "cuda" and torch.cuda.is_available()


def _existing(path: str | Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    path = Path(path).resolve()
    return next(place for place in (path, *path.parents) if place.exists())
