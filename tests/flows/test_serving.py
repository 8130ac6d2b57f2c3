"""What is served and how: the verb's lines, a server of vLLM's kind that follows, and the margin that forms ask for."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

import flows.release as flow
from factpatch.errors import InputError, RefusedError
from factpatch.settings.config import RegistrySettings, ServingSettings, Settings
from flows.delivery import Wanted, export_as
from flows.serving import describe_serving, follow
from integrations.mlflow_registry import ReleasedVersion

SETTINGS = Settings(registry=RegistrySettings(name="atlas"))
PASSED = {"reliability": {"value": 1.0}, "released": True, "gates": []}
FAILED = {
    "reliability": {"value": 0.5},
    "released": False,
    "gates": [{"verdict": "failed", "reason": "Reliability of 50.0% is below."}],
}
RELEASE = {"base": {"source": "base", "fingerprint": "0123456789abcdef"}, "serving": {"peft": PASSED, "q4_k_m": FAILED}}


@pytest.fixture
def server():
    """Takes and drops adapters as vLLM does, and answers in text."""
    adapters: dict[str, str] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            rows = [{"id": "base", "root": "base"}, *({"id": name, "root": path} for name, path in adapters.items())]
            self.answer(200, json.dumps({"data": rows}))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/v1/unload_lora_adapter":
                del adapters[body["lora_name"]]
            elif body["lora_name"] in adapters:
                return self.answer(400, "already loaded")
            else:
                adapters[body["lora_name"]] = body["lora_path"]
            return self.answer(200, f"Success: {body['lora_name']}")

        def answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    running = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield SimpleNamespace(address=f"http://127.0.0.1:{running.server_port}", adapters=adapters)
    running.shutdown()


def test_a_server_follows_the_champion_forth_and_back(server, tmp_path):
    for number in ("1", "2"):
        (tmp_path / f"atlas-{number}").mkdir()
    first, second = (ReleasedVersion(number, "file:///store", RELEASE) for number in ("1", "2"))
    assert follow(SETTINGS, first, server.address, tmp_path).endswith("serves version 1 as 'atlas' now")
    assert follow(SETTINGS, first, server.address, tmp_path).endswith("already")
    follow(SETTINGS, second, server.address, tmp_path)
    assert server.adapters == {"atlas": str(tmp_path / "atlas-2")}
    follow(SETTINGS, first, server.address, tmp_path)  # after a rollback
    assert server.adapters == {"atlas": str(tmp_path / "atlas-1")}


def test_the_lines_say_what_is_released_in_which_form():
    lines = describe_serving(SETTINGS, ReleasedVersion("3", "file:///store", RELEASE))
    assert "peft      released, reliability 100.0%: factpatch export --version 3 --format peft --output DIR" in lines
    assert "q4_k_m    not released: Reliability of 50.0% is below." in lines
    assert "mlflow    models:/atlas@champion" in lines


def test_a_form_that_was_refused_is_not_exported(tmp_path, monkeypatch):
    release = RELEASE | {"serving": {"peft": FAILED}}
    found = ReleasedVersion("3", "file:///store", release)
    monkeypatch.setattr("integrations.mlflow_registry.read_version", lambda *_: found)
    with pytest.raises(RefusedError, match="version 3 is not released as peft: Reliability of"):
        export_as(SETTINGS, Wanted(tmp_path / "out", format="peft"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"format": "gguf"}, "--format gguf needs --base FILE.gguf"),
        ({"rank": 8}, "--rank means nothing"),
        ({"format": "peft", "base": "a.gguf"}, "--base means nothing"),
        ({"format": "gguf-lora", "base": "a.gguf", "type": "q8_0"}, "--type means nothing"),
        ({"link": True}, "--link means nothing"),
    ],
)
def test_what_a_form_has_no_use_for_is_refused(tmp_path, changes, told):
    with pytest.raises(InputError, match=told):
        Wanted(tmp_path / "out", **changes)
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="exists; name a new --output"):
        Wanted(tmp_path / "out")


def test_a_form_below_the_floors_is_trained_anew_with_a_margin(monkeypatch):
    """As often as confidences are listed, until it holds; what follows evaluate runs once."""
    ran: list[tuple[str, float]] = []
    steps = tuple(SimpleNamespace(name=name) for name in ("localize", "edit", "evaluate", "register"))
    below = iter([["q4_k_m"], []])
    monkeypatch.setattr(flow, "edit", steps[1])
    monkeypatch.setattr(flow, "evaluate", steps[2])
    monkeypatch.setattr(flow, "forms_below", lambda *_: next(below))
    monkeypatch.setattr(flow, "choose_release_mode", lambda plan, refused: plan)
    monkeypatch.setattr(
        flow, "_run", lambda some, plan: ran.extend((step.name, plan.settings.training.confidence) for step in some)
    )
    settings = Settings(serving=ServingSettings(("q4_k_m",), raise_confidence=(0.98, 0.999)))
    plan = flow.ReleasePlan(settings, (), flow_provenance(), "attempt", None, output="out")
    done = flow._run_with_margin(steps, plan)
    assert done.settings.training.confidence == 0.98
    assert ran == [
        ("localize", 0.9),
        ("edit", 0.9),
        ("evaluate", 0.9),
        ("edit", 0.98),
        ("evaluate", 0.98),
        ("register", 0.98),
    ]


def flow_provenance():
    from factpatch.release.provenance import Provenance

    return Provenance("base", None, "float32", False)
