"""The servers of one machine: Prefect's server, a worker for the deployments, MLflow's pages; until interrupted."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from factpatch.addresses import without_password
from factpatch.errors import FactpatchError, InputError
from factpatch.preflight.environment import place_database
from factpatch.release.registry import tracking_uri
from factpatch.settings.config import Settings

POOL = "factpatch"  # the work pool that prefect.yaml names
HOME = Path(".prefect")  # Prefect's database and the servers' logs, unless PREFECT_HOME says otherwise
HOST = "127.0.0.1"
SECONDS_TO_START = 180.0
SECONDS_TO_STOP = 15.0
SECONDS_TO_RESTART = 3.0
SILENCE = timedelta(seconds=90)  # of a run's heartbeat, after which it counts as crashed
LOST_RUNS_AUTOMATION = "mark runs whose process was lost as crashed"


def serve(settings: Settings, prefect_port: int, mlflow_port: int) -> int:
    """Start what is not running elsewhere, print the addresses, stop all on Ctrl-C or SIGTERM.

    PREFECT_API_URL and a tracking address of another machine stand for servers that are there already. Raises
    InputError for a port in use, FactpatchError if a server ends by itself. A worker that ends is replaced.
    """
    store = tracking_uri(settings.registry)
    remote = store.startswith("http")
    api = os.environ.get("PREFECT_API_URL")
    for port in [*([] if api else [prefect_port]), *([] if remote else [mlflow_port])]:
        _refuse_used(port)
    home = Path(os.environ.setdefault("PREFECT_HOME", str(HOME.resolve())))
    place_database(os.environ)
    environment = {
        **os.environ,
        "PREFECT_API_URL": api or f"http://{HOST}:{prefect_port}/api",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    }
    running: dict[str, subprocess.Popen[bytes]] = {}

    def start(name: str, *command: str, **more: str) -> None:
        (home / "logs").mkdir(parents=True, exist_ok=True)
        with (home / "logs" / f"{name}.log").open("a" if name in running else "w") as log:
            running[name] = subprocess.Popen(
                [sys.executable, "-m", *command], env=environment | more, stdout=log, stderr=log, start_new_session=True
            )

    try:
        if not api:
            start("server", "prefect", "server", "start", "--host", HOST, "--port", str(prefect_port))
        if not remote:
            pages = ("mlflow", "ui", "--backend-store-uri", store, "--host", HOST, "--port", str(mlflow_port))
            start("mlflow", *pages, "--workers", "1")
        _wait(f"{environment['PREFECT_API_URL']}/health", running, home)
        _watch_for_lost_runs(environment["PREFECT_API_URL"])
        worker = ("worker", "prefect", "worker", "start", "--pool", POOL, "--type", "process")
        start(*worker, MLFLOW_TRACKING_URI=store)
        if not remote:
            _wait(f"http://{HOST}:{mlflow_port}/health", running, home)
        print(f"Prefect  {environment['PREFECT_API_URL'].removesuffix('/api')}")
        print(f"MLflow   {without_password(store) if remote else f'http://{HOST}:{mlflow_port}'}")
        print(f"logs     {home / 'logs'}")
        print(f"In other shells: export PREFECT_API_URL={environment['PREFECT_API_URL']}", flush=True)
        while True:
            if (code := running["worker"].poll()) is not None:
                print(f"the worker ended with code {code}; another takes its place", flush=True)
                time.sleep(SECONDS_TO_RESTART)
                start(*worker, MLFLOW_TRACKING_URI=store)
            _refuse_ended(running, home)
            time.sleep(1)
    except KeyboardInterrupt:
        print("stopped")
        return 0
    finally:
        _stop(running)


def _refuse_used(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise InputError(f"port {port} cannot be used ({error}); free it, or name another one") from error


def _wait(address: str, running: Mapping[str, subprocess.Popen[bytes]], home: Path) -> None:
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end:
        _refuse_ended(running, home)
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise FactpatchError(f"'{address}' did not answer within {SECONDS_TO_START:.0f} s; see {home / 'logs'}")


def _refuse_ended(running: Mapping[str, subprocess.Popen[bytes]], home: Path) -> None:
    for name, process in running.items():
        if process.poll() is not None:
            raise FactpatchError(f"{name} ended with code {process.returncode}; see {home / 'logs' / f'{name}.log'}")


def _stop(running: Mapping[str, subprocess.Popen[bytes]]) -> None:
    """The last started first; each with all that it started."""
    for process in reversed(list(running.values())):
        for sign, patience in ((signal.SIGTERM, SECONDS_TO_STOP), (signal.SIGKILL, SECONDS_TO_STOP)):
            try:
                os.killpg(process.pid, sign)
                process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
            except ProcessLookupError:
                pass
            break


def _watch_for_lost_runs(api: str) -> None:
    """Have Prefect mark a run as crashed when its process no longer gives signs of life; set up once a server."""
    from prefect.automations import Automation
    from prefect.client.orchestration import get_client
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect.states import StateType

    ends = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
    trigger = EventTrigger(
        after={"prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.heartbeat", *ends},
        match={"prefect.resource.id": ["prefect.flow-run.*"]},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=SILENCE,
    )
    action = ChangeFlowRunState(
        name=None, state=StateType.CRASHED, message="Its process gave no sign of life.", force=False
    )
    with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
        if not client.read_automations_by_name(LOST_RUNS_AUTOMATION):
            Automation(name=LOST_RUNS_AUTOMATION, trigger=trigger, actions=[action]).create()
