"""The rollback flow: the previous champion again, in seconds."""

from __future__ import annotations

from typing import Any

from prefect import flow

from factpatch.preflight.environment import user_name
from factpatch.settings.config import load_settings
from tasks.promote import rollback as swap


@flow(name="rollback", timeout_seconds=600)
def rollback(why: str, config: str | None = None, overrides: dict[str, Any] | None = None, who: str = "") -> str:
    """Swap `champion` and `previous` and record who did so and why; the number of the version that is champion now."""
    return swap(load_settings(config, overrides).registry, who or user_name(), why)
