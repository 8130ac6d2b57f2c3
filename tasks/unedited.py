"""The step of a release without facts: it stands for localize, edit, evaluate and regress."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from factpatch.settings.config import Settings


@task(name="unedited", timeout_seconds=3600)
def unedited(output: str, settings: Settings) -> str:
    """Leave the base model itself as the release in the output folder; path of edit.json."""
    from factpatch.preflight.shared_model import base_model
    from factpatch.release.base_model import write_base_model

    with base_model(settings.model) as loaded:
        return str(write_base_model(Path(output), loaded, settings))
