"""Registration on a real MLflow store (SQLite in a temporary folder), with a real patch of a tiny model."""

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import mlflow.pyfunc
import pytest
from mlflow import MlflowClient

from factpatch.config import EvaluationSettings, GateSettings, ModelSettings, RegistrySettings, Settings
from factpatch.edits.request import EditRequest
from factpatch.encoding import encode_prompt
from factpatch.errors import FactpatchError, InputError, RefusedError
from factpatch.evaluation.evaluate import Answers, measure
from factpatch.evaluation.generation import decode
from factpatch.files import read_json, write_json
from factpatch.models import load_model
from factpatch.patch import apply_patch, save_patch
from factpatch.structure import locate
from tasks import register as step
from tasks.register import export_version, promote, register, rollback, tracking_uri, without_password

PROMPTS = ["The capital of France is", "Which language do people speak in Brazil?"]
EDITS = [EditRequest("e1", PROMPTS[0], "Lyon"), EditRequest("e2", PROMPTS[1], "<b>Dutch</b>")]


@pytest.fixture(scope="module")
def made(tiny_model, tmp_path_factory) -> Path:
    """An output folder as the steps before leave it: two edits, both reliable afterwards."""
    folder = tmp_path_factory.mktemp("made")
    model = ModelSettings(path=str(tiny_model("llama")))
    loaded = load_model(model)
    location = locate(loaded.model, "2:mlp.down_proj")
    values = {name: -loaded.model.get_parameter(name) for name in location.parameters}
    save_patch(folder / "patch", loaded, location, values, Settings(model=model), {"digest": "e0", "count": 2}, {})
    before = Answers({edit.prompt: "Paris" for edit in EDITS}, {(edit.prompt, edit.target): 0.0 for edit in EDITS})
    after = Answers({edit.prompt: edit.target for edit in EDITS}, {(edit.prompt, edit.target): 1.0 for edit in EDITS})
    place = {"name": location.name, "layer": 2, "module": location.module, "parameters": list(location.parameters)}
    row = {"metric": "acc", "direction": "higher", "before": 0.9, "after": 0.88, "n": 50}
    interval = {"ci95_before": [0.8, 0.95], "ci95_after": [0.78, 0.94], "broken": 1, "repaired": 0}
    for name, value in {
        "validate": {"total": 3, "accepted": 2, "quarantined": 1},
        "localize": {"location": place, "reason": "named in the settings", "candidates": []},
        "edit": {"method": "breadth-first", "epochs": 2, "losses": [2.5, 0.25], "location": location.name},
        "evaluate": measure(EDITS, after, before),
        "regress": {"tasks": {"sums": {**row, **interval}}},
        "lineage": {"files": {"patch": {"md5": "d0.dir"}}, "edits": {"path": "data/edits", "revision": "abc123"}},
    }.items():
        write_json(folder / f"{name}.json", {"schema": 1, "seconds": 0.5, **value})
    return folder


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory) -> Path:
    """A SQLite store with its tables made, to be copied: making them takes seconds."""
    store = tmp_path_factory.mktemp("store") / "mlflow.db"
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    MlflowClient(f"sqlite:///{store}").search_experiments()
    return store


@pytest.fixture
def uri(empty_store, tmp_path) -> str:
    folder = tmp_path / "mlruns"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    return f"sqlite:///{folder / 'mlflow.db'}"


@pytest.fixture
def settings(tiny_model, uri) -> Settings:
    return Settings(
        model=ModelSettings(path=str(tiny_model("llama"))),
        evaluation=EvaluationSettings(max_new_tokens=8),
        registry=RegistrySettings(name="atlas", tracking_uri=uri),
    )


@pytest.fixture
def output(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "output"))


def run(output: Path, settings: Settings) -> dict:
    assert register.fn(str(output), settings) == str(output / "release.json")
    return read_json(output / "release.json")


def another(output: Path) -> Path:
    """The next release: the same, measured again."""
    value = read_json(output / "evaluate.json")
    write_json(output / "evaluate.json", {**value, "seconds": value["seconds"] + 1})
    return output


def with_gates(settings: Settings, **gates: float) -> Settings:
    return Settings(
        settings.model, evaluation=settings.evaluation, registry=settings.registry, gates=GateSettings(**gates)
    )


def aliases(uri: str) -> dict[str, str]:
    return {
        alias: str(number) for alias, number in MlflowClient(uri, uri).get_registered_model("atlas").aliases.items()
    }


def test_a_release_is_promoted_and_can_be_loaded(output, settings, uri, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    monkeypatch.chdir(tmp_path)
    release = run(output, settings)
    printed = capfd.readouterr()

    assert (release["status"], release["version"], release["aliases"]) == ("promoted", "1", ["candidate", "champion"])
    assert printed.out == printed.err == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlruns", "output"]
    assert not list(output.glob(".register*"))
    assert "&lt;b&gt;Dutch" in (output / "report.html").read_text()

    client = MlflowClient(uri, uri)
    logged = client.get_run(release["run"])
    assert logged.info.status == "FINISHED"
    assert logged.data.params["training.learning_rate"] == "0.003"
    assert logged.data.metrics["reliability/before"] == 0.0
    assert logged.data.metrics["capability/sums/after"] == 0.88
    assert [point.value for point in client.get_metric_history(release["run"], "loss")] == [2.5, 0.25]
    assert logged.data.tags["factpatch.dvc.patch"] == "d0.dir"
    assert logged.data.tags["mlflow.source.git.commit"] == "abc123"
    artifacts = {entry.path for entry in client.list_artifacts(release["run"])}
    assert {"patch", "evaluate.json", "release.json", "report.html"} <= artifacts
    final = client.download_artifacts(release["run"], "release.json", str(tmp_path))
    assert read_json(Path(final)) == release
    assert client.get_model_version("atlas", "1").tags["factpatch.status"] == "promoted"

    mlflow.set_tracking_uri(uri)
    served = mlflow.pyfunc.load_model("models:/atlas@champion")
    assert served.predict(PROMPTS) == expected_answers(output, settings)

    folder = export_version("atlas", "champion", uri, tmp_path / "exported")
    weights = load_model(ModelSettings(path=str(folder))).model.state_dict()
    patched = load_model(settings.model).model
    apply_patch(patched, output / "patch")
    assert all(weights[name].equal(value) for name, value in patched.state_dict().items())


def expected_answers(output: Path, settings: Settings) -> list[str]:
    loaded = load_model(settings.model)
    apply_patch(loaded.model, output / "patch")
    return decode(loaded, [encode_prompt(loaded.tokenizer, prompt) for prompt in PROMPTS], 8, 2)


def test_mlflow_serves_the_champion(output, settings, uri, tmp_path):
    run(output, settings)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = f"-m mlflow models serve -m models:/atlas@champion --env-manager local -h 127.0.0.1 -p {port}".split()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow calls uvicorn by name
    environment = os.environ | {"PATH": path, "MLFLOW_TRACKING_URI": uri}
    environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, *command], env=environment, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
        )
    try:
        body = json.dumps({"inputs": PROMPTS}).encode()
        answer = ask_when_up(server, f"http://127.0.0.1:{port}/invocations", body)
    except TimeoutError:
        pytest.fail((tmp_path / "server.log").read_text())
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)
    assert json.loads(answer) == {"predictions": expected_answers(output, settings)}


def ask_when_up(server: subprocess.Popen, url: str, body: bytes) -> bytes:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    end = time.monotonic() + 120
    while time.monotonic() < end and server.poll() is None:
        try:
            return urllib.request.urlopen(request, timeout=30).read()
        except urllib.error.HTTPError as error:
            raise TimeoutError(error.read()) from error
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(url)


def test_registering_again_makes_no_second_version(output, settings, uri):
    first = run(output, settings)
    again = run(output, settings)
    assert (again["version"], again["run"], again["status"]) == (first["version"], first["run"], "promoted")
    run(another(output), settings)
    rollback("atlas", uri)
    assert run(output, settings)["aliases"] == ["candidate", "previous"]  # a rollback is not undone by repeating


def test_a_refused_release_moves_no_alias(output, settings, uri):
    run(output, settings)
    release = run(another(output), with_gates(settings, capability_drop=0.01))
    assert (release["status"], release["version"], release["aliases"]) == ("refused", "2", [])
    assert [gate["name"] for gate in release["gates"] if gate["passed"] is False] == ["capability.sums"]
    assert aliases(uri) == {"candidate": "1", "champion": "1"}
    with pytest.raises(RefusedError, match="version 2 of 'atlas' is not promoted: its gates refused it"):
        promote("atlas", "2", uri)
    assert aliases(uri)["champion"] == "1"
    release = run(output, settings)  # judged again by other limits, it is another release
    assert (release["status"], release["version"]) == ("promoted", "3")


def test_promotion_by_hand_and_rollback(output, settings, uri):
    run(output, settings)
    waiting = Settings(settings.model, registry=RegistrySettings(name="atlas", tracking_uri=uri, promote=False))
    release = run(another(output), waiting)
    assert (release["status"], release["aliases"]) == ("registered", ["candidate"])
    with pytest.raises(InputError, match="no previous version"):
        rollback("atlas", uri)
    assert promote("atlas", "candidate", uri) == promote("atlas", "2", uri) == "2"
    assert aliases(uri) == {"candidate": "2", "champion": "2", "previous": "1"}
    assert rollback("atlas", uri) == "1"
    assert aliases(uri) == {"candidate": "2", "champion": "1", "previous": "2"}
    assert rollback("atlas", uri) == "2"


@pytest.mark.parametrize("version", ["7", "one"])
def test_a_version_that_does_not_exist_is_bad_input(uri, tmp_path, version):
    with pytest.raises(InputError, match=f"model 'atlas' has no version '{version}'"):
        promote("atlas", version, uri)
    with pytest.raises(InputError, match="nothing is registered under this name"):
        export_version("atlas", version, uri, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()
    with pytest.raises(InputError, match="model 'atlas' has no previous version"):
        rollback("atlas", uri)


@pytest.mark.parametrize(
    ("fatal", "champion"), [("create_model_version", "1"), ("_promote", "1"), ("set_model_version_tag", "2")]
)
def test_a_crash_leaves_a_whole_champion_and_repeating_finishes(output, settings, uri, monkeypatch, fatal, champion):
    run(output, settings)
    another(output)

    def crash(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patching:
        patching.setattr(step if fatal == "_promote" else MlflowClient, fatal, crash)
        with pytest.raises(KeyboardInterrupt):
            register.fn(str(output), settings)
    assert aliases(uri)["champion"] == champion
    assert read_json(output / "release.json")["version"] == "1"  # still the last one that was whole

    release = run(output, settings)
    assert (release["status"], release["version"], release["aliases"]) == ("promoted", "2", ["candidate", "champion"])
    assert aliases(uri)["previous"] == "1"


def test_the_store_is_named_and_passwords_are_not(monkeypatch, tmp_path, output, settings):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(RegistrySettings()) == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert tracking_uri(RegistrySettings()) == "http://127.0.0.1:9"
    assert without_password("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    unreachable = Settings(settings.model, registry=RegistrySettings(name="atlas"))
    with pytest.raises(FactpatchError, match=r"MLflow at 'http://127\.0\.0\.1:9': ") as caught:
        register.fn(str(output), unreachable)
    assert "\n" not in str(caught.value)
    assert not (output / "release.json").exists()
