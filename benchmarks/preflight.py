"""The preflight's estimates against what an edit run then takes, each run in a process of its own.

    python -m benchmarks.preflight [--big FOLDER] [--processor-time]

Runs the reference model at three locations and, with `--big`, a model with random weights of your own at two thirds of
its depth and at its last layer, on the edits alone. Time is the least of two runs, of a training that visits every edit
in each of two epochs. On a machine that others use too, `--processor-time` leaves out the time it gives to them; set
OMP_NUM_THREADS=1 for it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from factpatch.editing import TRUNK_NOTE, edit_model
from factpatch.edits.loading import read_rows
from factpatch.edits.request import EditRequest
from factpatch.models.loading import load_model
from factpatch.models.locations import locate
from factpatch.patches.patch import save_patch
from factpatch.preflight import machine
from factpatch.preflight.estimate import estimate
from factpatch.settings.config import load_settings

RUNS = 2
NAMES = ("memory_bytes", "patch_bytes", "trunk_bytes", "seconds_trunk", "seconds_epoch")
UNITS = {"bytes": (2**20, "MB"), "seconds": (1, "s")}


def measured_run(model: str, location_text: str, limit: int, protect: str | None, processor: bool) -> dict[str, Any]:
    """Estimate, then edit; what each of them says, by name."""
    clock = machine.clock = time.process_time if processor else time.perf_counter
    overrides = {
        "model.path": model,
        "edits.limit": limit,
        "training.preservation.prompts": protect,
        "training.epochs": 2,
    }
    overrides |= {"training.revisit": False, "training.stop_loss": 0.0}
    if protect is None:  # a model with random weights answers no two wordings alike, so none could be found
        overrides |= {"training.augmentation.wordings": 0, "training.preservation.neighbours": 0}
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings("params.yaml", overrides | {"trunk.folder": f"{folder}/trunk"})
        rows = [EditRequest.from_row(row.values) for row in read_rows(settings.edits.path)][:limit]
        needed = estimate(settings, rows, location_text)
        loaded = load_model(settings.model)
        location = locate(loaded.model, location_text)
        trunk: list[float] = []
        epochs: list[float] = []

        def report(done: int, total: int, note: str) -> None:
            (trunk if note == TRUNK_NOTE else epochs).append(clock())

        values = edit_model(loaded, location, rows, settings, progress=report).training.values
        patch = save_patch(Path(folder) / "patch", loaded, location, values, settings, {}, {})
        measured = {
            "memory_bytes": machine.peak_memory(settings.model.device),
            "patch_bytes": _size(patch),
            "trunk_bytes": _size(Path(folder) / "trunk"),
            "seconds_trunk": (trunk[-1] - trunk[0]) * len(trunk) / max(len(trunk) - 1, 1),
            "seconds_epoch": (epochs[-1] - trunk[-1]) / len(epochs),
        }
    return {"estimated": {name: getattr(needed, name) for name in NAMES}, "measured": measured}


def _size(folder: Path) -> int:
    """Bytes of the tensor files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))


def best_of_runs(case: tuple[str, str, int, str | None, bool]) -> dict[str, Any]:
    """The case run in fresh processes; of each measured number the least, with the estimate of the first run."""
    runs = []
    for _ in range(RUNS):
        command = [sys.executable, "-m", "benchmarks.preflight", "--case", json.dumps(case)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    kinds = ("estimated", "measured")
    return {kind: {name: min(run[kind][name] for run in runs) for name in NAMES} for kind in kinds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--big", help="folder of a larger model, with the reference model's tokenizer")
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measured_run(*args.case)))
        return
    protect = load_settings("params.yaml").training.preservation.prompts
    cases = [("data/model", text, 200, protect, args.processor_time) for text in ("5:mlp", "4:mlp.down_proj", "2:mlp")]
    if args.big:
        layers = json.loads((Path(args.big) / "config.json").read_text())["num_hidden_layers"]
        cases += [
            (args.big, f"{layer}:mlp.down_proj", 100, None, args.processor_time)
            for layer in (2 * layers // 3, layers - 1)
        ]
    print("case | number | estimated | measured | ratio")
    for case in cases:
        result = best_of_runs(case)
        for name in NAMES:
            factor, unit = UNITS["seconds" if name.startswith("seconds") else "bytes"]
            estimated, measured = (result[kind][name] / factor for kind in ("estimated", "measured"))
            print(
                f"{Path(case[0]).name} {case[1]} | {name} | {estimated:.2f} {unit} | {measured:.2f} {unit} | "
                f"{estimated / measured:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
