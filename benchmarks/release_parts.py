"""What each step of a release takes on a model of your own, beside the least that its arithmetic and memory allow.

    python -m benchmarks.release_parts MODEL counterfact_3k.json --edits 200 --output runs/parts

Runs the steps of a release in an empty folder with cold caches and default settings. For every product of a forward
pass with a matrix the floor is its operations over the matrix rate, or the matrix's bytes over the memory rate if that
is more; a backward pass adds its operations over the matrix rate. Both rates are measured first, in the same process.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.flop_counter import FlopCounterMode

from factpatch.edits.accepted import read_accepted
from factpatch.files import read_json
from factpatch.preflight.machine import matrix_rate, memory_rate
from factpatch.settings.config import Settings, load_settings
from flows.plan import read_release_plan
from flows.release import STEPS
from flows.release_mode import choose_release_mode

COLUMNS = ("reliability", "generalization", "locality", "locality_content")


@dataclass
class Floor:
    """Seconds that the products of forward passes need at least, and their operations."""

    matrix: float
    memory: float
    seconds: float = 0.0
    operations: int = 0

    def count(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Add a product with a matrix."""
        if not isinstance(module, nn.Linear):
            return
        weight = module.weight
        operations = 2 * weight.numel() * (output.numel() // weight.shape[0])
        self.operations += operations
        self.seconds += max(operations / self.matrix, weight.nbytes / self.memory)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count within the block; operations of backward passes are those that no forward pass made."""
        hook = register_module_forward_hook(self.count)
        try:
            with FlopCounterMode(display=False) as counter:
                yield
        finally:
            hook.remove()
        self.seconds += max(0, counter.get_total_flops() - self.operations) / self.matrix


def write_rows(source: Path, count: int, target: Path, columns: tuple[str, ...] | None) -> None:
    """The first rows of the set, of all its columns or of those named."""
    rows = json.loads(source.read_text(encoding="utf-8"))[:count]
    kept = [{key: row[key] for key in columns or row} for row in rows]
    target.parent.mkdir(parents=True)
    target.write_text(json.dumps(kept), encoding="utf-8")


def run_steps(folder: Path, settings: Settings) -> None:
    """Every step with its seconds, of the clock and of the processor, and its floor."""
    matrix, memory = matrix_rate("cpu", torch.float32), memory_rate("cpu")
    rates = f"matrix rate {matrix / 1e9:.0f} GFLOP/s, memory rate {memory / 1e9:.1f} GB/s"
    print(f"{rates}, {torch.get_num_threads()} threads")
    print("| step | seconds | processor seconds | floor, seconds | floor / processor |\n|---|---|---|---|---|")
    total, plan = [0.0, 0.0, 0.0], read_release_plan(settings, None, str(folder), compare=False)
    for step in STEPS:
        floor, clock, processor = Floor(matrix, memory), time.perf_counter(), time.process_time()
        with floor.counting():
            step.fn(str(folder), settings)
        if step is STEPS[0]:
            choose_release_mode(replace(plan, edits=tuple(read_accepted(folder))))
        spent = [time.perf_counter() - clock, time.process_time() - processor, floor.seconds]
        total = [one + more for one, more in zip(total, spent, strict=True)]
        _line(step.name, *spent)
    _line("all", *total)


def _line(name: str, clock: float, processor: float, floor: float) -> None:
    share = floor * torch.get_num_threads() / processor
    print(f"| {name} | {clock:.0f} | {processor:.0f} | {floor:.0f} | {share:.0%} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("rows", type=Path, help="a JSON list of rows")
    parser.add_argument("--edits", type=int, default=200)
    parser.add_argument("--columns", nargs="+", help="only these of the rows' columns: prompt target_new")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings")
    parser.add_argument("--output", type=Path, required=True, help="a folder that is not there")
    args = parser.parse_args()
    model, source = args.model.resolve(), args.rows.resolve()
    args.output.mkdir(parents=True)
    os.chdir(args.output)
    write_rows(source, args.edits, Path("edits") / source.name, args.columns)
    overrides: dict[str, Any] = {"model.path": str(model), "edits.path": "edits"}
    overrides |= {name: yaml.safe_load(value) for name, _, value in (one.partition("=") for one in args.set)}
    settings = load_settings(None, overrides)
    folder = Path("run")
    folder.mkdir()
    run_steps(folder, settings)
    release = read_json(folder / "release.json")
    edit = read_json(folder / "edit.json")
    print(f"\n{release['status']}; {edit['location']}, {edit['epochs']} epochs, {edit['visits']} visits")
    for name in COLUMNS:
        print(f"{name} {release['metrics'][name]['after']:.1%} of {release['metrics'][name]['n']}")
    for gate in release["gates"]:
        print(f"{gate['verdict']}: {gate['reason']}")


if __name__ == "__main__":
    main()
