"""Outside tools as steps and flows need them (MLflow's registry, lm-evaluation-harness); none knows a step."""

from __future__ import annotations

import os

from factpatch.preflight.environment import bypass_proxies, name_user, place_database

# The outside tools read these when they are imported, so they stand before any of them. Telemetry is off by default.
for _name, _value in {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}.items():
    os.environ.setdefault(_name, _value)
name_user(os.environ)
bypass_proxies(os.environ)
place_database(os.environ)
