"""The retest step: what a model says today to every live fact and canary."""

from __future__ import annotations

import time
from pathlib import Path

from prefect import task

from factpatch.edits.live import read_live
from factpatch.files import output_folder, write_json
from factpatch.progress import show_progress
from factpatch.settings.config import AUTO, Settings


@task(name="retest", timeout_seconds=12 * 3600)
def retest(output: str, settings: Settings, source: str, patch: str | None = None) -> str:
    """Ask the facts that the output folder holds, and the canaries; write `monitor.json` there and return its path.

    `source` is a model folder, a hub name or the address of a server; `patch` is applied to a model first. Only reads,
    so it may be repeated.
    """
    from dataclasses import replace

    from factpatch.evaluation.canaries import find_canaries, read_canaries
    from factpatch.evaluation.evaluate import collect_answers
    from factpatch.evaluation.retention import retention
    from factpatch.evaluation.serving import ask_server, is_address
    from factpatch.models.loading import load_model
    from factpatch.patches.patch import apply_patch

    start = time.perf_counter()
    folder = output_folder(output)
    facts, canaries = read_live(folder), read_canaries(settings.gates.canaries)
    live = [fact.request() for fact in facts]
    if settings.gates.canaries == AUTO and settings.model.path and Path(settings.model.path).is_dir():
        canaries = find_canaries(load_model(settings.model), live, settings)  # as the release chose them
    requests = [*live, *canaries]
    with show_progress("retest") as report:
        if is_address(source):
            outputs = ask_server(source, [request.prompt for request in requests], settings, report)
        else:
            loaded = load_model(replace(settings.model, path=source))
            if patch is not None:
                apply_patch(loaded, patch)
            outputs = dict(collect_answers(loaded, requests, settings, progress=report).outputs)
    value = retention(facts, canaries, outputs, settings)
    value["seconds"] = round(time.perf_counter() - start, 3)
    return str(write_json(Path(folder) / "monitor.json", value))
