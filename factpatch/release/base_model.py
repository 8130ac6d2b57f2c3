"""The release where no fact is in force: the base model itself, with a patch that changes nothing.

It takes back what earlier ones wrote when every fact is withdrawn.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from factpatch.edits.request import digest_edits
from factpatch.evaluation.evaluate import Answers, measure
from factpatch.files import write_json, write_text
from factpatch.models.loading import LoadedModel
from factpatch.models.locations import Location
from factpatch.patches.certificate import certify, output_digest, tokenizer_digests
from factpatch.patches.patch import save_patch
from factpatch.release.mode import read_start
from factpatch.release.record import digest_patch
from factpatch.settings.config import Settings
from factpatch.training_data.carry_over import NOTHING_CARRIED_OVER, PRESERVED_FILE, write_carried_over

REASON = "no fact is in force, so nothing is written"
NOWHERE: dict[str, Any] = {"name": "none", "layer": None, "module": None, "parameters": []}


def write_base_model(folder: Path, loaded: LoadedModel, settings: Settings) -> Path:
    """Leave in the output folder what the steps from localize to regress leave, for no edits; path of edit.json."""
    start = time.perf_counter()
    training = {
        "method": settings.training.method,
        "mode": read_start(folder, [], settings).mode.to_json(),
        "epochs": 0,
        "steps": 0,
        "visits": 0,
        "last_loss": None,
    }
    tokenizer, nothing = tokenizer_digests(loaded), {"digest": digest_edits([]), "count": 0}
    patch = save_patch(folder / "patch", loaded, Location(0, "", ()), {}, settings, nothing, training)
    certificate = certify(loaded, patch, [], output_digest(loaded, []), tokenizer)
    measured, answers = {"patch": digest_patch(patch)}, Answers({}, {})
    done = {"edits": 0, "location": NOWHERE["name"], "parameters": [], "losses": [], "certificate": certificate}
    place = {"location": NOWHERE, "reason": REASON, "method": "none", "candidates": [], "notes": []}
    seconds = round(time.perf_counter() - start, 3)
    for name, value, spent in (
        ("localize", place, 0.0),
        ("edit", {**training, **done}, seconds),
        ("evaluate", {**measure([], answers, answers), **measured}, 0.0),
        ("regress", {"tasks": {}, "cached": [], **measured}, 0.0),
    ):
        write_json(folder / f"{name}.json", {"schema": 1, **value, "seconds": spent})
    of_an_earlier_run = ("localize.png", "regress_items.jsonl", "probes.json", PRESERVED_FILE)
    for left in of_an_earlier_run:
        (folder / left).unlink(missing_ok=True)
    write_carried_over(folder, NOTHING_CARRIED_OVER)
    write_text(folder / "losses.csv", "epoch,loss\n")
    return folder / "edit.json"
