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
    from factpatch.editing import EditRun
    from factpatch.models.loading import LoadedModel
    from factpatch.models.locations import Location
    from factpatch.release.mode import ReleaseStart
    from factpatch.training_data.rows import FoundRows


@task(name="edit", timeout_seconds=24 * 3600)
def edit(output: str, settings: Settings) -> str:
    """Write `patch/` with its certificate, `losses.csv`, `companions.jsonl`, `preserved.jsonl` and `edit.json` into the
    output folder.

    While it trains, its state stands in `checkpoint.safetensors`; with `training.resume` a killed run continues from
    there to the very patch that it would have left. Not retried: a failure would repeat.
    """
    from factpatch.methods.checkpoint import CHECKPOINT_FILE, remove_checkpoint
    from factpatch.preflight.machine import peak_memory
    from factpatch.preflight.placing import preflight
    from factpatch.preflight.shared_model import base_model

    start = time.perf_counter()
    folder = Path(output)
    edits = accepted_to_write(folder)
    text = settings.localization.location or read_json(folder / "localize.json")["location"]["name"]
    needed, fitting = preflight(settings, edits, text, folder)
    with base_model(fitting.model) as loaded:
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
    from factpatch.editing import describe_run, encode_edits
    from factpatch.methods.checkpoint import CHECKPOINT_FILE
    from factpatch.models.loading import preserved, write_values
    from factpatch.models.locations import locate
    from factpatch.patches.certificate import certify, output_digest, tokenizer_digests
    from factpatch.patches.patch import save_patch
    from factpatch.release.mode import read_start
    from factpatch.training_data.carry_over import write_carried_over, write_preserved

    begun = read_start(folder, edits, settings)
    resume, settings = settings.training.resume, replace(settings, training=replace(settings.training, resume=False))
    tokenizer = tokenizer_digests(loaded)
    location = locate(loaded.model, place)
    loaded.stored.refuse_unmapped(location.parameters)
    run = _train(loaded, location, edits, settings, begun, folder / CHECKPOINT_FILE, resume)
    result = run.training
    training = {**describe_run(loaded, location, edits, settings, run), "mode": begun.mode.to_json()}
    summary = {"digest": digest_edits(edits), "count": len(edits)}
    rows = encode_edits(loaded, edits, settings.edits.chat_template)
    with preserved(loaded.model, location.parameters):
        write_values(loaded.model, result.values)
        outputs = output_digest(loaded, rows)
    patch = save_patch(folder / "patch", loaded, location, result.values, settings, summary, training, result.factors)
    certificate = certify(loaded, patch, rows, outputs, tokenizer)
    lines = [f"{number},{loss:.6f}" for number, loss in enumerate(result.losses, start=1)]
    write_carried_over(folder, run.rows.carried_over)
    write_preserved(folder, run.rows.preserved_prompts)
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


def _train(
    loaded: LoadedModel,
    location: Location,
    edits: list[EditRequest],
    settings: Settings,
    begun: ReleaseStart,
    checkpoint: Path,
    resume: bool,
) -> EditRun:
    """What joins the edits, and the values that training gives; told while it goes on."""
    from factpatch.editing import StartingPoint, edit_model

    values = loaded.stored.from_files(begun.patch.new) if begun.patch else None
    start = StartingPoint(values, tuple(begun.parted(edits)[1]), begun.carried_over, begun.withdrawn)

    def tell(rows: FoundRows) -> None:
        for note in rows.notes:
            print(note, file=sys.stderr)

    with show_progress(f"edit {location.name}") as report:
        return edit_model(loaded, location, edits, settings, start, report, tell, checkpoint, resume)
