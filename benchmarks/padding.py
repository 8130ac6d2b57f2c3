"""What padding costs: an epoch's rows forward and backward, without padding and with it.

    python -m benchmarks.padding MODEL rows.csv --edits 10

The rows are those that the default settings train: edits, augmented and preserved ones, of the lengths that they have.
Both ways run the same mini-batches from the same activations; processor seconds.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import replace

import torch

from factpatch.editing import encode_edits
from factpatch.edits.loading import read_rows
from factpatch.edits.request import EditRequest
from factpatch.frozen_trunk.opening import Rows, make_plan
from factpatch.frozen_trunk.replay import head_side
from factpatch.frozen_trunk.store import kept_activations
from factpatch.methods.master_weights import masters_of
from factpatch.methods.optimizer import Stepper
from factpatch.methods.preservation import PreservationTerm
from factpatch.methods.workload import batch_passes
from factpatch.models.loading import load_model
from factpatch.models.locations import locate
from factpatch.settings.config import load_settings
from factpatch.training_data.rows import find_training_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("rows")
    parser.add_argument("--edits", type=int, default=10)
    parser.add_argument("--location", default="22-26:mlp.down_proj")
    args = parser.parse_args()

    torch.set_num_threads(1)
    settings = load_settings(None, {"model.path": args.model, "trunk.folder": None, "evaluation.cache": None})
    loaded = load_model(settings.model)
    edits = [EditRequest.from_row(row.values) for row in read_rows(args.rows)][: args.edits]
    found = find_training_rows(loaded, edits, settings)
    taught = [*encode_edits(loaded, edits, False), *found.augmented]
    rows = [*taught, *found.preserved]
    location = locate(loaded.model, args.location)
    plan = make_plan(loaded, location, rows)
    if plan is None or plan.layout != "padding-free":
        raise SystemExit(f"at {location.name} this model does not run several rows in one")
    kept = kept_activations(loaded, plan, rows, settings.trunk)
    order = random.Random(0).sample(range(len(rows)), len(rows))
    size = settings.training.rows_a_step(len(order))
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    seconds = {}
    for layout in ("padding-free", "padded"):
        own = replace(plan, layout=layout)
        with head_side(loaded.model, own) as run, masters_of(loaded.model, location) as masters:
            opened = Rows(loaded, rows, own, kept, run)
            stepper = Stepper(opened, masters, 1e-4, None, PreservationTerm(opened, len(taught)))
            stepper.gradients(batches[0])
            start = time.process_time()
            for batch in batches:
                stepper.gradients(batch)
            seconds[layout] = time.process_time() - start
    kinds = [
        [rows[index] for index in batch if (index < len(taught)) is edited]
        for batch in batches
        for edited in (True, False)
    ]
    padded = sum(
        forward_pass.positions
        for kind in kinds
        for forward_pass in batch_passes(kind, max(1, len(kind)), None, "padded")
    )
    real = sum(opened.lengths)
    print(f"{len(rows)} rows in {len(batches)} mini-batches, {real} positions; padded {padded}")
    print(
        f"forward and backward: {seconds['padding-free']:.1f} s without padding, {seconds['padded']:.1f} s with it "
        f"({seconds['padded'] / seconds['padding-free']:.2f}x)"
    )


if __name__ == "__main__":
    main()
