"""Registration on a real MLflow store (SQLite in a temporary folder), with a real patch of a tiny model."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import mlflow.pyfunc
import pytest
from mlflow import MlflowClient

from factpatch.errors import UnavailableError
from factpatch.evaluation.generation import decode
from factpatch.evaluation.serving import ask_server
from factpatch.files import read_json
from factpatch.models.encoding import encode_prompt
from factpatch.models.loading import load_model
from factpatch.patches.patch import apply_patch
from factpatch.release.registry import reaching, tracking_uri
from factpatch.settings.config import GateSettings, ModelSettings, RegistrySettings, Settings
from integrations.mlflow_registry import export_version, fetch_patch, mlflow_client
from tasks.promote import read_history
from tasks.register import ensure_registered_model, experiment_id, register

PROMPTS = ["The capital of France is", "Which language do people speak in Brazil?"]


def run(output: Path, settings: Settings) -> dict:
    assert register.fn(str(output), settings) == str(output / "release.json")
    return read_json(output / "release.json")


def with_gates(settings: Settings, **gates: float) -> Settings:
    return Settings(
        settings.model,
        evaluation=settings.evaluation,
        registry=settings.registry,
        gates=GateSettings(**{"canaries": None, **gates}),
    )


def aliases(uri: str) -> dict[str, str]:
    return {
        alias: str(number) for alias, number in MlflowClient(uri, uri).get_registered_model("atlas").aliases.items()
    }


@pytest.mark.parametrize("store", ["patch", "model"])
def test_a_release_is_promoted_and_can_be_loaded(output, settings, uri, tmp_path, monkeypatch, capfd, store):
    settings = replace(settings, registry=replace(settings.registry, store=store))
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    monkeypatch.chdir(tmp_path)
    release = run(output, settings)
    printed = capfd.readouterr()

    assert (release["status"], release["version"], release["aliases"]) == ("registered", "1", ["candidate"])
    assert printed.out == printed.err == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlruns", "output"]
    assert not list(output.glob(".register*"))
    assert "&lt;b&gt;Dutch" in (output / "report.html").read_text()

    client = MlflowClient(uri, uri)
    logged = client.get_run(release["run"])
    assert logged.info.status == "FINISHED"
    assert logged.data.params["training.learning_rate"] == "auto"
    assert logged.data.metrics["reliability/before"] == 0.0
    assert logged.data.metrics["capability/sums/after"] == 0.88
    assert [point.value for point in client.get_metric_history(release["run"], "loss")] == [2.5, 0.25]
    assert logged.data.tags["factpatch.dvc.patch"] == "d0.dir"
    assert logged.data.tags["mlflow.source.git.commit"] == "abc123"
    artifacts = {entry.path for entry in client.list_artifacts(release["run"])}
    assert {"evaluate.json", "release.json", "report.html"} <= artifacts
    assert ("patch" in artifacts) == (store == "model")  # else the version itself holds it
    source = Path(client.get_model_version("atlas", "1").source.removeprefix("file://")) / "artifacts"
    assert [path.name for path in source.iterdir()] == [store]
    final = client.download_artifacts(release["run"], "release.json", str(tmp_path))
    assert read_json(Path(final)) == release
    assert client.get_model_version("atlas", "1").tags["factpatch.status"] == "registered"

    mlflow.set_tracking_uri(uri)
    served = mlflow.pyfunc.load_model("models:/atlas@candidate")
    assert served.predict(PROMPTS) == expected_answers(output, settings)

    folder = export_version(settings.registry, "candidate", tmp_path / "exported")
    weights = load_model(ModelSettings(path=str(folder))).model.state_dict()
    patched = load_model(settings.model)
    apply_patch(patched, output / "patch")
    assert all(weights[name].equal(value) for name, value in patched.model.state_dict().items())
    fetched = fetch_patch(settings.registry, "candidate", tmp_path / "fetched")
    assert read_json(fetched / "manifest.json") == read_json(output / "patch" / "manifest.json")


def expected_answers(output: Path, settings: Settings) -> list[str]:
    loaded = load_model(settings.model)
    apply_patch(loaded, output / "patch")
    answers = decode(loaded, [encode_prompt(loaded.tokenizer, prompt) for prompt in PROMPTS], 16, 2)
    return [answer.text for answer in answers]


LOAD = """
import json, sys
sys.modules["factpatch"] = None  # importing it would fail
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, *prompts = sys.argv[1:]
model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
for prompt in prompts:
    asked = tokenizer(prompt, return_tensors="pt")
    ids = model.generate(**asked, max_new_tokens=16, do_sample=False, pad_token_id=tokenizer.eos_token_id)
    said = tokenizer.decode(ids[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
    print(json.dumps(said.partition("\\n")[0].strip()))
"""


def test_an_exported_version_needs_transformers_alone(output, settings, tmp_path):
    run(output, settings)
    folder = export_version(settings.registry, "candidate", tmp_path / "exported")
    command = [sys.executable, "-I", "-c", LOAD, str(folder), *PROMPTS]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == expected_answers(output, settings)
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pkl", ".py"))]
    assert read_json(folder / "config.json")["architectures"] == ["LlamaForCausalLM"]


def test_mlflow_serves_the_champion(output, settings, uri, tmp_path):
    run(output, settings)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = f"-m mlflow models serve -m models:/atlas@candidate --env-manager local -h 127.0.0.1 -p {port}".split()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow calls uvicorn by name
    environment = os.environ | {"PATH": path, "MLFLOW_TRACKING_URI": uri}
    environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, *command], env=environment, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
        )
    try:
        body = json.dumps({"inputs": PROMPTS}).encode()
        address = f"http://127.0.0.1:{port}/invocations"
        answer = ask_when_up(server, address, body)
        asked_again = ask_server(address, PROMPTS, settings)  # as the monitor does
    except TimeoutError:
        pytest.fail((tmp_path / "server.log").read_text())
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)
    assert json.loads(answer) == {"predictions": expected_answers(output, settings)}
    assert list(asked_again.values()) == expected_answers(output, settings)


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


def test_registering_again_makes_no_second_version(output, settings):
    first = run(output, settings)
    again = run(output, settings)
    assert (again["version"], again["run"], again["status"]) == (first["version"], first["run"], "registered")


def test_a_refused_release_moves_no_alias(output, settings, uri, release_again):
    run(output, settings)
    release = run(release_again(output), with_gates(settings, capability_drop=0.01))
    assert (release["status"], release["version"], release["aliases"]) == ("refused", "2", [])
    assert [gate["name"] for gate in release["gates"] if gate["passed"] is False] == ["capability.sums"]
    assert aliases(uri) == {"candidate": "1"}
    release = run(output, settings)  # judged again by other limits, it is another release
    assert (release["status"], release["version"]) == ("registered", "3")


@pytest.mark.parametrize("fatal", ["create_model_version", "set_registered_model_alias"])
def test_a_crash_leaves_the_registry_right_and_repeating_finishes(
    output, settings, uri, release_again, monkeypatch, fatal
):
    run(output, settings)
    release_again(output)

    def crash(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patching:
        patching.setattr(MlflowClient, fatal, crash)
        with pytest.raises(KeyboardInterrupt):
            register.fn(str(output), settings)
    assert aliases(uri) == {"candidate": "1"}
    assert read_json(output / "release.json")["version"] == "1"  # still the last one that was whole

    release = run(output, settings)
    assert (release["status"], release["version"], release["aliases"]) == ("registered", "2", ["candidate"])


def test_a_run_that_was_killed_gets_its_true_state(output, settings, uri, release_again):
    client = MlflowClient(uri, uri)
    place = client.get_run(run(output, settings)["run"]).data.tags["factpatch.place"]
    experiment = client.get_experiment_by_name("factpatch").experiment_id
    abandoned = client.create_run(experiment, tags={"factpatch.place": place}).info.run_id
    elsewhere = client.create_run(experiment, tags={"factpatch.place": "atlas on another machine"}).info.run_id
    run(release_again(output), settings)
    assert [client.get_run(name).info.status for name in (abandoned, elsewhere)] == ["KILLED", "RUNNING"]


def test_a_store_that_is_away_is_one_line_at_once(monkeypatch, tmp_path, output, settings):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    unreachable = Settings(settings.model, registry=RegistrySettings(name="atlas"))
    with pytest.raises(UnavailableError, match=r"MLflow at 'http://127\.0\.0\.1:9' cannot be reached") as caught:
        register.fn(str(output), unreachable)
    assert "\n" not in str(caught.value)
    assert not (output / "release.json").exists()


def test_the_registry_lies_in_mlruns_whatever_the_folder_is_called(tmp_path, monkeypatch):
    place = tmp_path / 'it\'s "run%20one" a?b#c :d 東京'
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    registry = RegistrySettings()
    uri = tracking_uri(registry)
    with reaching(uri):
        client = mlflow_client(uri)
    run = client.create_run(experiment_id(client, uri)).info.run_id
    client.log_text(run, "all of it", "page.txt")
    assert Path(client.download_artifacts(run, "page.txt")).read_text() == "all of it"
    ensure_registered_model(client, registry.name)
    assert read_history(registry) == []
    assert list(tmp_path.iterdir()) == [place]  # and nothing beside it
    assert [path.name for path in place.iterdir()] == ["mlruns"]
    assert {path.name for path in (place / "mlruns").iterdir()} == {"mlflow.db", "artifacts"}
