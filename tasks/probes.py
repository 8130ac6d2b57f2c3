"""The probes step: paraphrases and locality probes for edits whose rows bring none, so that something is measured."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from prefect import task

from factpatch.edits.accepted import PROBES_FILE, read_accepted
from factpatch.files import write_json, write_jsonl
from factpatch.progress import show_progress
from factpatch.settings.config import Settings


@task(name="probes", timeout_seconds=12 * 3600)
def probes(output: str, settings: Settings) -> str:
    """Write `probes.jsonl`, which other steps read with the accepted edits, and `probes.json`; the latter's path.

    The model is loaded only where edits lack something and `evaluation.make_probes` says to make it. Not retried: a
    failure would repeat.
    """
    from factpatch.training_data.probes import MadeProbes, lacking, make_probes

    start = time.perf_counter()
    folder = Path(output)
    (folder / PROBES_FILE).unlink(missing_ok=True)
    edits = read_accepted(folder)
    made = MadeProbes((), ())
    if any(lacking(edits, kind, settings) for kind in ("paraphrases", "locality")):
        from factpatch.preflight.shared_model import base_model

        with base_model(settings.model) as loaded, show_progress("probes") as report:
            made = make_probes(loaded, edits, settings, report)
        for note in made.notes:
            print(f"probes: {note}", file=sys.stderr)
    write_jsonl(folder / PROBES_FILE, made.rows)
    counts = {kind: sum(len(row.get(kind, ())) for row in made.rows) for kind in ("paraphrases", "locality")}
    value = {"schema": 1, "made": counts, "notes": list(made.notes), "seconds": round(time.perf_counter() - start, 3)}
    return str(write_json(folder / "probes.json", value))
