"""The release flow: from edit requests to a new, gated version of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from factpatch.config import load_settings
from factpatch.files import output_folder, read_json
from flows.summary import markdown
from tasks.edit import edit
from tasks.evaluate import evaluate
from tasks.lineage import lineage
from tasks.localize import localize
from tasks.register import register
from tasks.regress import regress
from tasks.validate import validate

# The order of the steps is written here and nowhere else; each reads what the earlier ones left in the output folder.
STEPS = (validate, localize, edit, evaluate, regress, lineage, register)


@flow(name="release", log_prints=False, timeout_seconds=48 * 3600)
def release(config: str | None = None, output: str = "runs/latest", overrides: dict[str, Any] | None = None) -> str:
    """Run every step and return the path of `release.json`.

    `config` names a params.yaml; `overrides` maps dotted setting names (`model.path`) to values that win over it.
    """
    settings = load_settings(config, overrides)
    folder = str(output_folder(output))
    for step in STEPS:
        step(folder, settings)
    path = Path(folder) / "release.json"
    create_markdown_artifact(markdown(read_json(path)), key="release", description="What was edited and what it did")
    return str(path)
