"""How long passes take: from their work, and how fast this machine multiplies matrices and writes memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from factpatch.methods.workload import ForwardPass, ModelShape, Workload
from factpatch.preflight.workload import logits_bytes

EFFICIENCY = 0.9  # of the machine's matrix rate that passes reach
MODULE_SECONDS = 0.4e-3  # seconds that a decoder block, or the logits, take in a forward pass beside their arithmetic
BATCH_SECONDS = 4e-3  # seconds that a batch of the trunk takes beside its blocks
TRAFFIC = 2  # times that saved activations are written in a pass
STEP_BYTES = 12  # written for each trained parameter in a step


@dataclass(frozen=True)
class MachineSpeed:
    """How fast this machine runs a model: operations and bytes written a second, bytes of a number in its dtype."""

    matrix: float
    memory: float
    size: int

    def trunk(self, positions: int, batches: int, shape: ModelShape) -> float:
        """Seconds of the frozen layers, once for every position."""
        return batches * BATCH_SECONDS + self._seconds(positions * shape.trunk, 0, batches * shape.trunk_blocks)

    def forward(self, passes: Sequence[ForwardPass], shape: ModelShape) -> float:
        """Seconds of passes through the whole model without gradients."""
        _, logits = _totals(passes, shape)
        work = forward_products(passes, shape)
        return self._seconds(work, logits * self.size, len(passes) * (shape.trunk_blocks + shape.blocks))

    def epoch(self, workload: Workload, shape: ModelShape) -> float:
        """Seconds of passes from what the trunk keeps, forward and backward, and of the optimizer's steps."""
        passes, steps = workload.passes, workload.steps
        positions, logits = _totals(passes, shape)
        work = epoch_products(workload, shape)
        written = logits * logits_bytes(self.size) + positions * shape.saved * self.size * TRAFFIC
        written += steps * shape.located * STEP_BYTES
        return self._seconds(work, written, 3 * len(passes) * (shape.blocks + 1))

    def _seconds(self, products: int, written: int, modules: int) -> float:
        return 2 * products / (EFFICIENCY * self.matrix) + written / self.memory + modules * MODULE_SECONDS


def forward_products(passes: Sequence[ForwardPass], shape: ModelShape) -> int:
    """Products of numbers in passes through the whole model."""
    positions, logits = _totals(passes, shape)
    return positions * (shape.trunk + shape.head) + logits * shape.width


def epoch_products(workload: Workload, shape: ModelShape) -> int:
    """Products of numbers in passes from what the trunk keeps, forward and backward, and in whitening at each step."""
    positions, logits = _totals(workload.passes, shape)
    whitening = 2 * workload.steps * workload.whitened_products
    return positions * (shape.head + shape.back) + 2 * logits * shape.width + whitening


def _totals(passes: Sequence[ForwardPass], shape: ModelShape) -> tuple[int, int]:
    """Positions, and numbers that the logits hold."""
    predicted = sum(forward_pass.predicted for forward_pass in passes)
    return sum(forward_pass.positions for forward_pass in passes), predicted * shape.vocabulary
