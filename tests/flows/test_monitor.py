"""The monitor on real models: the champion, a coarsely rounded copy, its base, a patched base, a server."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch

from factpatch.ask import ask
from factpatch.edits.live import LiveFact
from factpatch.errors import InputError
from factpatch.evaluation.retention import retention
from factpatch.models.loading import load_model
from factpatch.settings.config import ModelSettings, Settings, load_settings
from flows.__main__ import main
from integrations.mlflow_registry import export_version
from tasks.promote import read_history

ROOT = Path(__file__).parents[2]
STEPS = 2.5  # of a rounded row from zero to its largest weight: so coarse that some facts are lost, and some are not
PARAMS = """\
model: {path: MODEL}
localization: {location: "5:mlp"}
training: {learning_rate: 4.0e-3, batch_size: 6, epochs: 30, augmentation: {wordings: 0}, preservation: {neighbours: 0}}
capability: {tasks: []}
gates: {generalization: 0.0, locality: 0.0, canaries: canaries.jsonl}
registry: {name: factpatch}
"""


@pytest.fixture(scope="module")
def place(prefect_home, reference_model, tmp_path_factory):
    """Where a release of eight facts was promoted."""
    folder = tmp_path_factory.mktemp("monitor")
    (folder / "params.yaml").write_text(PARAMS.replace("MODEL", str(reference_model)))
    canaries = (ROOT / "data" / "canaries.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "canaries.jsonl").write_text("".join(canaries[-8:]), encoding="utf-8")
    (folder / "data" / "edits").mkdir(parents=True)
    demo = (ROOT / "data" / "edits" / "0001-demo.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "data" / "edits" / "0001-demo.jsonl").write_text("".join(demo[:8]), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["run", "--output", "out"]) == 0
    return folder


@pytest.fixture
def there(place, monkeypatch):
    """Stands in that place; rows added to its ledger are gone afterwards."""
    monkeypatch.chdir(place)
    yield place
    for path in (place / "data" / "edits").glob("0002*"):
        path.unlink()


@pytest.fixture(scope="module")
def rounded(place) -> Path:
    """The champion after weight-only quantization: every matrix row rounded to a few values."""
    settings = load_settings(place / "params.yaml", {"registry.tracking_uri": f"sqlite:///{place}/mlruns/mlflow.db"})
    loaded = load_model(ModelSettings(path=str(export_version(settings.registry, "champion", place / "exported"))))
    with torch.no_grad():
        for name, weight in loaded.model.named_parameters():
            if weight.ndim == 2 and "proj" in name:
                step = weight.abs().amax(1, keepdim=True) / STEPS
                weight.copy_((weight / step).round() * step)
    loaded.model.save_pretrained(place / "rounded")
    loaded.tokenizer.save_pretrained(place / "rounded")
    return place / "rounded"


def read(place: Path, output: str = "runs/monitor") -> dict:
    return json.loads((place / output / "monitor.json").read_text(encoding="utf-8"))


def test_the_champion_holds(there, capsys):
    assert main(["monitor"]) == 0
    value = read(there)
    assert (value["status"], value["model"], value["version"], value["limit"]) == ("held", "champion", "1", 0.95)
    assert (value["reliability"]["value"], value["reliability"]["n"]) == (1.0, 8)
    assert value["reliability"]["ci95"][0] == pytest.approx(0.676, abs=1e-3)
    assert value["canaries"]["n"] == 8
    assert capsys.readouterr().out.splitlines()[0] == "champion: held"


def test_a_rounded_champion_has_lost_facts_and_says_what_it_answers_now(there, rounded, capsys):
    assert main(["monitor", str(rounded)]) == 1
    value = read(there)
    assert value["status"] == "decayed"
    assert 0 < len(value["decayed"]) < 8
    for row in value["decayed"]:
        assert row["released"] == row["target"] != row["output"]
        assert ask(Settings(model=ModelSettings(path=str(rounded))), row["prompt"]) == row["output"]
    assert value["reliability"]["value"] == 1 - len(value["decayed"]) / 8
    assert value["again"] == {"command": f"factpatch run --model {rounded}", "run": None, "state": None}
    printed = capsys.readouterr().out
    assert all(row["id"] in printed for row in value["decayed"])


def test_the_limit_is_the_operators_and_wrong_canaries_alone_open_nothing(there, rounded):
    asked = ["monitor", str(rounded), "--set", "monitor.limit=0.05", "--set"]
    assert main([*asked, "gates.canaries=null"]) == 0
    assert read(there)["status"] == "held"
    Path("wrong.jsonl").write_text('{"prompt": "Question: What is 7 minus 6?\\nAnswer:", "target": "2"}\n')
    assert main([*asked, "gates.canaries=wrong.jsonl"]) == 1
    assert (read(there)["status"], read(there)["again"]) == ("damaged", None)


def test_only_facts_in_force_that_were_released_are_asked(there):
    rows = [
        {"prompt": "Nobody was asked this before:", "target": "x"},  # pending
        {"op": "revert", "id": "demo-0001"},
        {"prompt": "The main language of Kiribati is", "target": "Dari"},  # supersedes
    ]
    (there / "data" / "edits" / "0002-more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["monitor"]) == 0
    assert read(there)["reliability"]["n"] == 6


def test_a_patched_base_is_asked_with_its_patch(there, reference_model):
    assert main(["monitor", str(reference_model), "--patch", "out/patch"]) == 0
    assert main(["monitor", str(reference_model)]) == 1
    assert len(read(there)["decayed"]) == 8


@pytest.fixture
def server(place):
    """A model behind MLflow's and OpenAI's forms of address; it answers with the patched base, in the latter after a
    line break as base models do, and up to where it is asked to stop."""
    settings = load_settings(place / "params.yaml")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.reply({"data": [{"id": "atlas"}]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/invocations":
                self.reply({"predictions": self.say(body["inputs"])})
            elif self.path == "/v1/completions" and body["model"] == "atlas":
                texts = [f"\n\n {text}\nAnd so on" for text in self.say(body["prompt"])]
                for mark in body.get("stop", ()):
                    texts = [text.partition(mark)[0] for text in texts]
                choices = [{"index": number, "text": text} for number, text in enumerate(texts)]
                self.reply({"choices": choices[::-1]})
            elif self.path == "/odd/invocations":
                self.reply(["?"])
            else:
                self.send_error(404)

        def say(self, prompts):
            return [ask(settings, prompt, str(place / "out" / "patch")) for prompt in prompts]

        def reply(self, value):
            text = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.mark.parametrize("kind", ["invocations", "v1"])
def test_a_server_is_asked_like_a_model(there, server, kind):
    assert main(["monitor", f"{server}/{kind}"]) == 0
    value = read(there)
    assert (value["reliability"]["value"], value["canaries"]["n"]) == (1.0, 8)


def test_bad_input_is_one_line(there, server, capsys, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text('{"prompt": "Who?", "target": "me"}\n')
    for arguments, told in (
        (["7"], "model 'factpatch' has no version '7'; there are 1"),
        (["no/such/folder"], "model folder 'no/such/folder' does not exist"),
        (["http://127.0.0.1:9/invocations"], "'http://127.0.0.1:9/invocations' does not answer"),
        ([f"{server}/chat"], "ends neither in '/invocations' (MLflow) nor in '/v1'"),
        ([f"{server}/odd/invocations"], "answered in another form"),
        ([f"{server}/none/v1"], "answered 404"),
        (["--edits", str(other)], "version 1 of 'factpatch' holds no fact of"),
        (["--set", "monitor.limit=2"], "monitor.limit is 2; it must be at most 1"),
    ):
        assert main(["monitor", *arguments]) == 2, arguments
        lines = capsys.readouterr().err.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        assert told in errors[-1]
        assert "Traceback" not in "".join(lines)


def test_one_loss_opens_one_edit_run_which_mends_the_checkpoint(there, rounded, monkeypatch):
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    from flows.release import release

    again = ["monitor", str(rounded), "--set", "gates.canaries=null", "--output"]
    monkeypatch.setenv("PREFECT_API_URL", PREFECT_API_URL.value())
    assert main([*again, "missing"]) == 1  # no such deployment yet
    assert read(there, "missing")["again"]["run"] is None
    release.to_deployment(name="scheduled").apply()
    assert main([*again, "never", "--set", "registry.promote=never"]) == 1
    assert read(there, "never")["again"]["run"] is None

    assert main([*again, "first"]) == main([*again, "second"]) == 1
    opened = read(there, "first")["again"]
    assert opened == read(there, "second")["again"]
    with get_client(sync_client=True) as client:
        (run,) = [run for run in client.read_flow_runs() if run.name == opened["run"]]
        kept = [artifact.data for artifact in client.read_artifacts() if artifact.key == "monitor"]
        states = [found.state_name for found in client.read_flow_runs()]
    assert run.parameters["overrides"] == {"gates.canaries": None, "model.path": str(rounded)}
    assert any("decayed" in text for text in kept)
    assert "Decayed" in states

    release(**run.parameters)
    assert main(["monitor", "--set", "gates.canaries=null"]) == 0
    assert (read(there)["version"], read_history(load_settings().registry)[-1].version) == ("2", "2")


def test_what_never_held_is_told_apart():
    facts = [LiveFact("a", "A?", "x", "x"), LiveFact("b", "B?", "y", "wrong"), LiveFact("c", "C?", "z", "z")]
    canaries = [LiveFact("k", "K?", "ok").request()]
    outputs = {"A?": "x", "B?": "w", "C?": "w", "K?": "ok"}
    value = retention(facts, canaries, outputs, Settings())
    assert value["status"] == "decayed"
    assert ([row["id"] for row in value["decayed"]], [row["id"] for row in value["unlearnt"]]) == (["c"], ["b"])
    value = retention(facts[:1], canaries, outputs | {"K?": "no"}, Settings())
    assert (value["status"], value["canaries"]["value"]) == ("damaged", 0.0)
    assert "1 of 1 canaries" in value["reasons"][1]
    with pytest.raises(InputError):
        load_settings(None, {"monitor.limits": 1})
