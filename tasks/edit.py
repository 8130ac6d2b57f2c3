"""The edit step: train all accepted edits at the chosen location and leave a patch."""

from __future__ import annotations

import time
from pathlib import Path

from prefect import task

from factpatch.config import Settings
from factpatch.edits.accepted import read_accepted
from factpatch.edits.request import digest_edits
from factpatch.files import read_json, write_json, write_text
from factpatch.progress import show_progress


@task(name="edit", timeout_seconds=24 * 3600)
def edit(output: str, settings: Settings) -> str:
    """Write `patch/`, `losses.csv` and `edit.json` into the output folder. Not retried: a failure would repeat."""
    from factpatch.editing import run_edit
    from factpatch.models import load_model
    from factpatch.patch import save_patch
    from factpatch.protection import protected_rows
    from factpatch.structure import locate

    start = time.perf_counter()
    folder = Path(output)
    edits = read_accepted(folder)
    text = settings.localization.location or read_json(folder / "localize.json")["location"]["name"]
    loaded = load_model(settings.model)
    location = locate(loaded.model, text)
    protected = protected_rows(loaded, edits, settings)
    with show_progress(f"edit {location.name}") as report:
        result = run_edit(
            loaded,
            location,
            edits,
            settings,
            protected,
            lambda done, total, loss: report(done, total, f"loss {loss:.4f}"),
        )
    training = {
        "method": settings.training.method,
        "epochs": len(result.losses),
        "steps": result.steps,
        "protected": len(protected),
        "last_loss": result.losses[-1],
    }
    summary = {"digest": digest_edits(edits), "count": len(edits)}
    patch = save_patch(folder / "patch", loaded, location, result.values, settings, summary, training)
    lines = [f"{number},{loss:.6f}" for number, loss in enumerate(result.losses, start=1)]
    write_text(folder / "losses.csv", "\n".join(["epoch,loss", *lines]) + "\n")
    value = {
        "schema": 1,
        **training,
        "edits": len(edits),
        "location": location.name,
        "parameters": list(location.parameters),
        "losses": list(result.losses),
        "patch_bytes": sum(file.stat().st_size for file in patch.iterdir()),
        "seconds": round(time.perf_counter() - start, 3),
    }
    return str(write_json(folder / "edit.json", value))
