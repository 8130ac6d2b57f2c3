"""The tutorial of docs/operating.md, command by command, on real servers; then runs that are stopped in the middle."""

from __future__ import annotations

import contextlib
import io
import json
import os
import queue
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from factpatch.release.registry import locked
from factpatch.settings.config import RegistrySettings
from flows.__main__ import main
from flows.notify import main as notify
from integrations.mlflow_registry import read_champion
from tasks.promote import read_history

ROOT = Path(__file__).parents[2]
TUTORIAL = "## From an empty registry to a rollback"
FACTS = 6  # of the demo's, so that a release takes seconds
PARAMS = """\
model: {path: data/model}
localization: {location: "5:mlp"}
training: {learning_rate: 4.0e-3, batch_size: 6, epochs: 30, augmentation: {wordings: 0}, preservation: {neighbours: 0}}
capability: {tasks: []}
gates: {generalization: 0.0, locality: 0.0, canaries: null}
registry: {name: factpatch}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def blocks() -> list[str]:
    """The tutorial's shell blocks."""
    section = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8").partition(TUTORIAL)[2].partition("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```", section, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A checkout with a short ledger and small settings; no registry and no server yet."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("factpatch", "tasks", "flows", "prefect.yaml", ".venv", "data/model", "data/capability"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(ROOT / name)
    (folder / "params.yaml").write_text(PARAMS)
    (folder / "data" / "edits").mkdir()
    demo = (ROOT / "data" / "edits" / "0001-demo.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "data" / "edits" / "0001-demo.jsonl").write_text("".join(demo[:FACTS]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def api(place):
    """The address of the server that `factpatch serve`, which `make serve` calls, runs with its worker."""
    ports = [str(free_port()), str(free_port())]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_"))}
    environment["PREFECT_WORKER_QUERY_SECONDS"] = "1"  # looks for work every second, not every ten
    command = [sys.executable, "-m", "flows", "serve", "--prefect-port", ports[0], "--mlflow-port", ports[1]]
    server = subprocess.Popen(command, cwd=place, env=environment, stdout=subprocess.PIPE, text=True)
    lines = []
    for line in server.stdout:
        lines.append(line)
        if "PREFECT_API_URL" in line:
            break
    assert lines[:2] == [f"Prefect  http://127.0.0.1:{ports[0]}\n", f"MLflow   http://127.0.0.1:{ports[1]}\n"]
    yield f"http://127.0.0.1:{ports[0]}/api"
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 0
    for port in ports:  # nothing is left behind
        with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
            probe.connect(("127.0.0.1", int(port)))


@pytest.fixture(scope="module")
def told(place, api) -> list[str]:
    """What each block of the tutorial printed. Verbs run in this process, whose libraries are loaded, as they do alone;
    everything else in a shell."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with pytest.MonkeyPatch.context() as patch, temporary_settings({PREFECT_API_URL: api}):
        patch.chdir(place)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("PREFECT_API_URL", api)
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
        return ["".join(map(run, block.splitlines())) for block in blocks()]


def run(line: str) -> str:
    """What one command prints; it must succeed."""
    if line.startswith("factpatch "):
        told = io.StringIO()
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            code = main(shlex.split(line)[1:])
        printed = told.getvalue()
    elif line.startswith("export "):  # of the path and the address, which are set
        return ""
    else:
        done = subprocess.run(["bash", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        code, printed = done.returncode, done.stdout
    assert code == 0, f"{line}: {printed[-3000:]}"
    return printed


def test_the_tutorial_releases_goes_back_and_withdraws(told):
    first, change, back = told
    assert "promoted" in first
    assert "1 to write, 1 to withdraw (champion 1)" in change
    assert "Flow run finished successfully" in change
    assert re.search(r"promote +1 -> 2 ", change)
    assert change.splitlines()[-1] == "Paris"
    lines = back.splitlines()
    assert lines[:3] == ["factpatch version 1 is champion again", "served/old", "Tunis"]
    assert "1 to write, 1 to withdraw (champion 1); version 2 has done so: 'factpatch promote 2' uses it" in lines
    assert [line.split()[1:5] for line in lines[-3:]] == [
        ["promote", "-", "->", "1"], ["promote", "1", "->", "2"], ["rollback", "2", "->", "1"]
    ]  # fmt: skip
    assert lines[-1].endswith("the ministry objects")


def refuses_another(place: Path, api: str, process: int) -> None:
    """While that process releases, one by hand is refused in a line that names it, and leaves nothing."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    told = io.StringIO()
    with contextlib.chdir(place), temporary_settings({PREFECT_API_URL: api}), contextlib.redirect_stderr(told):
        code = main(["run", "--output", "second"])
    errors = [line for line in told.getvalue().splitlines() if line.startswith("error")]
    assert (code, len(errors)) == (1, 1)
    assert errors[0].startswith("error: a release of 'factpatch' runs into 'runs/scheduled' since ")
    assert f"(process {process} on " in errors[0]
    assert list((place / "second").iterdir()) == []


MOVES = [("promote", "1"), ("promote", "2"), ("rollback", "1")]


def holder(place: Path) -> dict:
    """Who holds the release lock; waits until somebody does."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError):
            return json.loads((place / "mlruns" / "locks" / "factpatch.release.json").read_text())
        time.sleep(0.1)
    raise TimeoutError


def start(api: str):
    """A run of the scheduled deployment, now."""
    from prefect.deployments import run_deployment
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: api}):
        return run_deployment("release/scheduled", timeout=0)


def state_of(api: str, run_id, *expected: str) -> str:
    """The run's state once it is one of those expected."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    end = time.monotonic() + 120
    with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
        while time.monotonic() < end:
            name = client.read_flow_run(run_id).state.name
            if name in expected:
                return name
            time.sleep(0.5)
    raise TimeoutError(f"still {name}")


def set_state(api: str, run_id, state) -> None:
    """As somebody does on Prefect's page."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
        client.set_flow_run_state(run_id, state)


@pytest.fixture
def endless(place):
    """While a test runs, releases train without end, so that however slow the machine is none is through too soon."""
    endless = PARAMS.replace("epochs: 30", "epochs: 1000000, revisit: false, stop_loss: 0.0")
    assert endless != PARAMS
    (place / "params.yaml").write_text(endless)
    yield
    (place / "params.yaml").write_text(PARAMS)


@pytest.mark.parametrize(("way", "state"), [("kill", "Crashed"), ("cancel", "Cancelled")])
def test_a_release_that_is_stopped_leaves_the_champion_a_free_lock_and_a_true_state(
    told, place, api, endless, way, state
):
    from prefect.states import Cancelled, Cancelling

    runs = [start(api).id for _ in range(1 if way == "kill" else 2)]
    process = holder(place)["process"]
    started = next(run for run in runs if state_of(api, run, "Running", "AwaitingConcurrencySlot") == "Running")
    if way == "kill":
        refuses_another(place, api, process)
        os.kill(process, signal.SIGKILL)
    else:  # of two runs of the deployment one waits
        (waiting,) = {*runs} - {started}
        assert state_of(api, waiting, "AwaitingConcurrencySlot", "Running") == "AwaitingConcurrencySlot"
        set_state(api, waiting, Cancelled())
        set_state(api, started, Cancelling())
    assert state_of(api, started, "Crashed", "Cancelled", "Completed") == state
    with locked(place / "mlruns" / "locks" / "factpatch.release.lock", "a test", patience=60):
        registry = RegistrySettings("factpatch", f"sqlite:///{place / 'mlruns' / 'mlflow.db'}")
        assert [(move.action, move.version) for move in read_history(registry)] == MOVES
        assert read_champion(registry).version == "1"


def test_a_block_is_told_of_a_run_that_fails(place, api, monkeypatch, capsys):
    from prefect.blocks.notifications import CustomWebhookNotificationBlock
    from prefect.settings import PREFECT_API_URL, temporary_settings

    received = queue.Queue()

    class Team(BaseHTTPRequestHandler):
        def do_POST(self):
            received.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    monkeypatch.chdir(place)
    monkeypatch.setenv("PREFECT_API_URL", api)
    with ThreadingHTTPServer(("127.0.0.1", 0), Team) as team, temporary_settings({PREFECT_API_URL: api}):
        Thread(target=team.serve_forever, daemon=True).start()
        address, form = f"http://127.0.0.1:{team.server_port}", {"text": "{{subject}}: {{body}}"}
        CustomWebhookNotificationBlock(name="team", url=address, json_data=form).save("team")
        assert notify(["custom-webhook/nobody"]) == 2
        assert "Prefect holds no block 'custom-webhook/nobody'" in capsys.readouterr().err
        assert notify(["custom-webhook/team"]) == notify(["custom-webhook/team"]) == 0
        assert main(["monitor", "data/none"]) == 2
        text = received.get(timeout=60)["text"]
        team.shutdown()
    assert text.startswith("factpatch: monitor Failed")
    assert "model folder 'data/none' does not exist" in text
