"""Prefect's log lines on the terminal: warnings and worse, errors of ours in one line."""

from __future__ import annotations

import logging
import os

from factpatch.errors import FactpatchError


def quiet_prefect() -> None:
    """To be called before Prefect is imported, which is when it reads its level."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    """Drop records about errors that the command line tells in its own line."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, FactpatchError)
