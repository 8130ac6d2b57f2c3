"""Free memory of this machine, with the limits that a container or the process has."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import torch

LIMITS = Path("/sys/fs/cgroup")  # of a container


def free_memory(device: str = "cpu") -> int:
    """Bytes that this process can still take, of an accelerator or of the machine's memory."""
    if torch.device(device).type == "cuda" and torch.cuda.is_available():
        return torch.cuda.mem_get_info(device)[0]
    return int(min(psutil.virtual_memory().available, _container_room(), _process_room()))


def _container_room() -> float:
    """Bytes that a container's limit leaves; infinite without one. What it caches of files gives way when needed."""
    try:
        limit = int((LIMITS / "memory.max").read_text())  # "max" stands for no limit
        used = int((LIMITS / "memory.current").read_text())
        counts = dict(line.split() for line in (LIMITS / "memory.stat").read_text().splitlines())
        return limit - used + int(counts["inactive_file"]) + int(counts["active_file"])
    except (OSError, ValueError, KeyError):
        return float("inf")


def _process_room() -> float:
    """Bytes that the limits of the process leave (`ulimit -v`, `ulimit -d`); infinite without one."""
    if sys.platform == "win32":
        return float("inf")
    import resource

    own = psutil.Process().memory_info()
    rooms = [float("inf")]
    for limit, used in ((resource.RLIMIT_AS, own.vms), (resource.RLIMIT_DATA, getattr(own, "data", own.rss))):
        most = resource.getrlimit(limit)[0]
        if most != resource.RLIM_INFINITY:
            rooms.append(max(0, most - used))
    return min(rooms)
