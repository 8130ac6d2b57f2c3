"""What an edit costs: processor seconds, memory, bytes to ship; and its values as a 4-bit file would hold them."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from gguf import GGMLQuantizationType, quants

from factpatch.methods.base import TrainingResult
from factpatch.models.loading import LoadedModel
from factpatch.models.locations import Location
from factpatch.patches.patch import NEW_FILE, make_patch
from factpatch.preflight.machine import peak_memory, process_memory
from factpatch.settings.config import Settings

BLOCK = 32  # values that a 4-bit block holds


@dataclass
class Cost:
    """Filled in when the block that it measures has ended."""

    seconds: float = 0.0  # of processor time
    memory: int = 0  # bytes by which the process grew at most


@contextlib.contextmanager
def counted() -> Iterator[Cost]:
    """Measure what the block takes. Where the system can't forget an earlier peak, memory is that beyond it."""
    cost = Cost()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak
    held, start = process_memory(), time.process_time()
    yield cost
    cost.seconds = time.process_time() - start
    cost.memory = max(0, peak_memory("cpu") - held)


def shipped_bytes(loaded: LoadedModel, location: Location, result: TrainingResult, settings: Settings) -> int:
    """The size of the file of new values of a saved patch, which are factors after a low-rank run."""
    with tempfile.TemporaryDirectory() as folder:
        make_patch(loaded, location, result.values, settings, {}, {}, result.factors).save(Path(folder) / "patch")
        return (Path(folder) / "patch" / NEW_FILE).stat().st_size


def in_four_bits(values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The values after a way through GGUF's Q4_1, whose blocks must fit a row; others stay as they are."""
    return {name: _quantized(value) if value.shape[-1] % BLOCK == 0 else value for name, value in values.items()}


def _quantized(value: torch.Tensor) -> torch.Tensor:
    kind = GGMLQuantizationType.Q4_1
    held = quants.dequantize(quants.quantize(value.float().cpu().numpy(), kind), kind)
    return torch.from_numpy(held).to(value.dtype)
