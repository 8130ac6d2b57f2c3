"""A release on real stores, which only the environment names: PostgreSQL for MLflow and Prefect, S3 for artifacts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.flows.servers import postgresql, s3

ROOT = Path(__file__).parents[2]
FACTS = 4
BUCKET = "releases"
PARAMS = """\
model: {path: MODEL}
localization: {location: "5:mlp"}
training: {learning_rate: 4.0e-3, batch_size: 4, epochs: 30, augmentation: {wordings: 0}, preservation: {neighbours: 0}}
capability: {tasks: []}
gates: {generalization: 0.0, locality: 0.0, canaries: null}
"""


@pytest.fixture(scope="module")
def stores():
    """The environment that names the servers; AWS_* is what the S3 server takes from anybody."""
    keys = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in keys.items():
            patch.setenv(name, value)
        with postgresql("mlflow", "prefect") as server, s3(BUCKET) as address:
            yield keys | {
                "MLFLOW_TRACKING_URI": f"postgresql+psycopg2://{server}/mlflow",
                "MLFLOW_DEFAULT_ARTIFACT_ROOT": f"s3://{BUCKET}/mlflow",
                "MLFLOW_S3_ENDPOINT_URL": address,
                "PREFECT_API_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{server}/prefect",
            }


@pytest.fixture(scope="module")
def released(stores, reference_model, tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A folder where a release was run, and the environment it ran in."""
    folder = tmp_path_factory.mktemp("stores")
    (folder / "params.yaml").write_text(PARAMS.replace("MODEL", str(reference_model)))
    demo = (ROOT / "data" / "edits" / "0001-demo.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "data" / "edits").mkdir(parents=True)
    (folder / "data" / "edits" / "0001-demo.jsonl").write_text("".join(demo[:FACTS]), encoding="utf-8")
    own = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_", "AWS_"))}
    environment = own | stores | {"PREFECT_HOME": str(folder / "prefect"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "flows", "run", "--output", "out"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    return folder, environment


def rows(address: str, query: str) -> list[tuple]:
    from sqlalchemy import create_engine, text

    engine = create_engine(address.replace("+asyncpg", "+psycopg2"))
    with engine.connect() as connection:
        found = [tuple(row) for row in connection.execute(text(query))]
    engine.dispose()
    return found


def test_the_release_lies_in_postgresql_and_s3_and_nowhere_else(released):
    import boto3

    folder, environment = released
    release = json.loads((folder / "out" / "release.json").read_text())
    assert (release["status"], release["version"]) == ("promoted", "1")
    mlflow, prefect = (environment[k] for k in ("MLFLOW_TRACKING_URI", "PREFECT_API_DATABASE_CONNECTION_URL"))
    assert sorted(rows(mlflow, "SELECT alias, version FROM registered_model_aliases")) == [
        ("candidate", 1), ("champion", 1)
    ]  # fmt: skip
    assert rows(prefect, "SELECT state_name FROM flow_run") == [("Completed",)]
    names = [
        f"{step}-" for step in ("validate", "probes", "localize", "edit", "evaluate", "regress", "lineage", "register")
    ]
    ran = [name for (name,) in rows(prefect, "SELECT name FROM task_run ORDER BY expected_start_time")]
    assert all(name.startswith(step) for name, step in zip(ran, [*names, "promote-"], strict=True))
    listed = boto3.client("s3", endpoint_url=environment["MLFLOW_S3_ENDPOINT_URL"]).list_objects_v2(Bucket=BUCKET)
    files = {Path(entry["Key"]).name for entry in listed["Contents"]}
    assert {"release.json", "report.html", "patch.safetensors", "MLmodel"} <= files
    assert "model.safetensors" not in files  # the base model stays where it is
    assert sorted(path.name for path in (folder / "mlruns").iterdir()) == ["locks"]
    assert not list((folder / "prefect").glob("*.db"))


def test_the_champion_comes_back_from_there(released, monkeypatch):
    from factpatch.ask import ask
    from factpatch.settings.config import ModelSettings, RegistrySettings, Settings
    from integrations.mlflow_registry import export_version, read_champion
    from tasks.promote import read_history

    folder, environment = released
    for name, value in environment.items():
        if name.startswith("MLFLOW_"):
            monkeypatch.setenv(name, value)
    settings = Settings(
        registry=RegistrySettings(name=json.loads((folder / "out" / "release.json").read_text())["model"])
    )
    assert [(move.action, move.version, move.done) for move in read_history(settings.registry)] == [
        ("promote", "1", True)
    ]
    assert len(read_champion(settings.registry).facts) == FACTS
    model = export_version(settings.registry, "champion", folder / "exported")
    row = json.loads((folder / "out" / "evaluate.json").read_text())["edits"][0]
    assert ask(Settings(model=ModelSettings(path=str(model))), row["prompt"]) == row["target"]


def test_the_compose_file_has_the_pinned_versions_and_no_secret():
    text = (ROOT / "deploy" / "compose.yaml").read_text()
    services = yaml.safe_load(text)["services"]
    pins = set((ROOT / "constraints.txt").read_text().split())
    named = [word for line in services["mlflow"]["build"]["dockerfile_inline"].splitlines() for word in line.split()]
    installed = {word for word in named if "==" in word}
    assert {word.split("==")[0] for word in installed} >= {"mlflow", "prefect", "psycopg2-binary", "boto3"}
    assert installed <= pins
    assert all(":" in service["image"] and "latest" not in service["image"] for service in services.values())
    secrets = [value for service in services.values() for name, value in service["environment"].items()
               if "PASSWORD" in name or "SECRET" in name or ("://" in value and "@" in value)]  # fmt: skip
    assert len(secrets) >= 6
    assert all("${" in value for value in secrets)
    example = (ROOT / "deploy" / "stores.env.example").read_text()
    assert "PASSWORD=\n" in example
