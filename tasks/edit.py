"""The edit step: train all accepted edits at the chosen location and leave a patch."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task

from factpatch.edits.accepted import accepted_to_write
from factpatch.edits.request import EditRequest, digest_edits
from factpatch.files import read_json, write_json, write_text
from factpatch.progress import show_progress
from factpatch.settings.config import Settings

if TYPE_CHECKING:  # other verbs start without torch
    from factpatch.methods.optimizer import TrainingResult
    from factpatch.models.loading import LoadedModel
    from factpatch.models.locations import Location
    from factpatch.preflight.estimate import Estimate
    from factpatch.release.mode import ReleaseMode, ReleaseStart
    from factpatch.training_data.rows import TrainingRows


@task(name="edit", timeout_seconds=24 * 3600)
def edit(output: str, settings: Settings) -> str:
    """Write `patch/` with its certificate, `losses.csv`, `companions.jsonl` and `edit.json` into the output folder.

    While it trains, its state stands in `checkpoint.safetensors`; with `training.resume` a killed run continues from
    there to the very patch that it would have left. Not retried: a failure would repeat.
    """
    from factpatch.methods.breadth_first.checkpoint import CHECKPOINT_FILE, remove_checkpoint
    from factpatch.preflight.machine import peak_memory
    from tasks.tools.base_model import base_model, within_memory

    start = time.perf_counter()
    folder = Path(output)
    edits = accepted_to_write(folder)
    text = settings.localization.location or read_json(folder / "localize.json")["location"]["name"]
    needed = within_memory(lambda: _preflight(settings, edits, text, folder))
    with base_model(settings.model) as loaded:
        value, patch = _write_patch(folder, loaded, edits, text, settings)
    value |= {
        "patch_bytes": sum(file.stat().st_size for file in patch.iterdir()),
        "preflight": asdict(needed),
        "measured": {"memory_bytes": peak_memory(settings.model.device)},
        "seconds": round(time.perf_counter() - start, 3),
    }
    path = write_json(folder / "edit.json", value)
    remove_checkpoint(folder / CHECKPOINT_FILE)
    return str(path)


def _write_patch(
    folder: Path, loaded: LoadedModel, edits: list[EditRequest], place: str, settings: Settings
) -> tuple[dict[str, Any], Path]:
    """Train the edits and leave patch, certificate and losses; what `edit.json` tells of them, and the patch."""
    from factpatch.editing import encode_edits
    from factpatch.methods.breadth_first.checkpoint import CHECKPOINT_FILE
    from factpatch.methods.learning_rate import with_step_size
    from factpatch.models.loading import preserved, write_values
    from factpatch.models.locations import locate
    from factpatch.patches.certificate import certify, output_digest, tokenizer_digests
    from factpatch.patches.patch import save_patch
    from factpatch.release.mode import read_start
    from factpatch.training_data.carry_over import write_carried_over

    begun = read_start(folder, edits, settings)
    resume, settings = settings.training.resume, replace(settings, training=replace(settings.training, resume=False))
    tokenizer = tokenizer_digests(loaded)
    location = locate(loaded.model, place)
    loaded.stored.refuse_unmapped(location.parameters)
    training_rows, result = _train(loaded, location, edits, settings, begun, folder / CHECKPOINT_FILE, resume)
    rate = with_step_size(settings.training, loaded.model, location).step_size
    training = _told(settings.training.method, rate, begun.mode, edits, training_rows, result)
    summary = {"digest": digest_edits(edits), "count": len(edits)}
    rows = encode_edits(loaded, edits, settings.edits.chat_template)
    with preserved(loaded.model, location.parameters):
        write_values(loaded.model, result.values)
        outputs = output_digest(loaded, rows)
    patch = save_patch(folder / "patch", loaded, location, result.values, settings, summary, training)
    certificate = certify(loaded, patch, rows, outputs, tokenizer)
    lines = [f"{number},{loss:.6f}" for number, loss in enumerate(result.losses, start=1)]
    write_carried_over(folder, training_rows.carried_over)
    write_text(folder / "losses.csv", "\n".join(["epoch,loss", *lines]) + "\n")
    value = {
        "schema": 1,
        **training,
        "edits": len(edits),
        "location": location.name,
        "parameters": list(location.parameters),
        "losses": list(result.losses),
        "certificate": certificate,
    }
    return value, patch


def _preflight(settings: Settings, edits: list[EditRequest], location: str, folder: Path) -> Estimate:
    """What the run will take, told to whoever watches; raises where it cannot fit."""
    from factpatch.preflight.estimate import check_room, describe_estimate, estimate
    from factpatch.preflight.machine import available

    needed = estimate(settings, edits, location)
    free = available(settings.model.device, folder, settings.trunk.folder)
    print(describe_estimate(needed, free), file=sys.stderr)
    check_room(needed, free, settings.trunk)
    return needed


def _train(
    loaded: LoadedModel,
    location: Location,
    edits: list[EditRequest],
    settings: Settings,
    begun: ReleaseStart,
    checkpoint: Path,
    resume: bool,
) -> tuple[TrainingRows, TrainingResult]:
    """What joins the edits, and the values that training gives; told while it goes on."""
    from factpatch.editing import run_edit
    from factpatch.training_data.rows import find_training_rows

    with show_progress(f"edit {location.name}") as report:
        new, learnt_before = begun.parted(edits)
        training_rows = find_training_rows(loaded, new, settings, learnt_before, begun.carried_over, begun.withdrawn)
        for note in training_rows.notes:
            print(note, file=sys.stderr)
        result = run_edit(
            loaded,
            location,
            edits,
            settings,
            training_rows.preserved,
            lambda done, total, loss: report(done, total, f"loss {loss:.4f}"),
            lambda done, total: report(done, total, "rows through the frozen layers"),
            checkpoint,
            resume,
            loaded.stored.from_files(begun.patch.new) if begun.patch else None,
            training_rows.augmented,
        )
    return training_rows, result


def _told(
    method: str,
    rate: float,
    mode: ReleaseMode,
    edits: list[EditRequest],
    training_rows: TrainingRows,
    result: TrainingResult,
) -> dict[str, Any]:
    """How training went, as `edit.json` and the patch's manifest hold it."""
    return {
        "method": method,
        "learning_rate": rate,
        "mode": mode.to_json(),
        "epochs": len(result.losses),
        "steps": result.steps,
        "visits": result.visits,
        "engine": result.engine,
        "protected": len(training_rows.preserved),
        "wordings": len(training_rows.augmented),
        "leakage": {"checked": training_rows.leakage_checked, "found": 0},
        "notes": list(training_rows.notes),
        "unsure": None if result.unsure is None else [edits[index].id for index in result.unsure],
        "last_loss": result.losses[-1] if result.losses else None,  # none where all was held already
    }
