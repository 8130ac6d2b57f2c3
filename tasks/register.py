"""Registration in MLflow: a run with every number, a model version that MLflow can serve, and the alias `candidate`.

The order of writes keeps the registry right at every moment: all is logged first, the version is created last and with
its tags, and the alias moves in one step from one whole version to another.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from prefect import task

from factpatch.addresses import sqlite_file, without_password
from factpatch.edits.origin import Origin
from factpatch.evaluation.gates import judge_reload
from factpatch.files import output_folder, read_json
from factpatch.release.publishing import RELEASE_FILES, write_release
from factpatch.release.record import (
    MANIFEST,
    assemble_release,
    judge_release,
    judge_serving,
    named_numbers,
    read_steps,
    release_id,
    with_gate,
)
from factpatch.release.registry import tracking_uri
from factpatch.report import read_evidence, render_report
from factpatch.settings.config import Settings
from factpatch.settings.shown import shown_settings
from integrations.mlflow_registry import LEDGER_TAG, RETRIES, STATUS_TAG, connect_registry
from integrations.stored_model import fetch_stored, log_model

EXPERIMENT = "factpatch"
ARTIFACTS = ("*.json", "*.jsonl", "*.csv")
RELEASE_TAG = "factpatch.release"  # tag of runs and versions: what the release is made of, by digest
PLACE = "factpatch.place"  # tag of a run: the model it is a release of, and the machine that makes it
ENTRIES_AT_ONCE = 100  # entries that MLflow takes at once, whatever their kind


@task(name="register", timeout_seconds=2 * 3600, persist_result=False, **RETRIES)
def register(output: str, settings: Settings) -> str:
    """Judge the release in `output`, register it as `candidate`; path of release.json. Writes report.html too.

    A release that a gate refuses is registered with status `refused` and moves no alias. Repeating is safe: a release
    has one version, found again by the digest of what it is made of. Raises FactpatchError if MLflow cannot be had.
    """
    started = time.perf_counter()
    folder = output_folder(output)
    steps, manifest = read_steps(folder), read_json(folder / MANIFEST)
    gates = judge_release(folder, steps, settings.gates)
    release = assemble_release(settings.registry.name, steps, manifest, gates)
    release["serving"] = judge_serving(steps["evaluate"], settings.gates)
    uri = tracking_uri(settings.registry)
    if not worth_keeping(release, settings):
        return leave_unregistered(folder, release, uri)
    with connect_registry(settings.registry) as client:
        identity = release_id(folder, gates)
        found = find_version(client, release["model"], identity)
        if found:
            release = ask_again(release, str(found.source), uri, folder, settings, steps)
        else:
            release, found = log_release(client, uri, folder, settings, release, steps, identity)
        if found is None:
            return leave_unregistered(folder, release, uri)
        number, run = str(found.version), found.run_id
        if release["status"] != "refused":
            release["status"] = name_candidate(client, found)
        aliases = client.get_registered_model(release["model"]).aliases
        release["version"] = number
        release["aliases"] = sorted(alias for alias, target in aliases.items() if str(target) == number)
        release |= {"run": run, "experiment": EXPERIMENT, "tracking_uri": without_password(uri)}
        release["timings"]["register"] = round(time.perf_counter() - started, 3)
        card = write_release(folder, release)
        for name in RELEASE_FILES:
            client.log_artifact(run, str(folder / name))
        client.update_model_version(release["model"], number, card)
    return str(folder / "release.json")


def worth_keeping(release: Mapping[str, Any], settings: Settings) -> bool:
    """May the registry hold this release? Refused ones if the settings say so; never a patch that nobody measured."""
    tampered = any(gate["name"] == "certificate" and gate["passed"] is False for gate in release["gates"])
    return release["status"] != "refused" or (settings.registry.keep_refused and not tampered)


def leave_unregistered(folder: Path, release: dict[str, Any], uri: str) -> str:
    """Write the decision where the registry keeps nothing; path of release.json."""
    nowhere: dict[str, Any] = {
        "aliases": [],
        "run": None,
        "experiment": EXPERIMENT,
        "tracking_uri": without_password(uri),
    }
    write_release(folder, release | nowhere)
    return str(folder / "release.json")


# Where MLflow keeps it


def experiment_id(client: MlflowClient, uri: str) -> str:
    """The experiment's id, made if absent. A server says itself where artifacts go; with a database they go where
    MLFLOW_DEFAULT_ARTIFACT_ROOT says (such as s3://bucket/path), else beside it."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return found.experiment_id
    if named := os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT"):
        return client.create_experiment(EXPERIMENT, artifact_location=named)
    if urlsplit(uri).scheme in {"http", "https"}:
        return client.create_experiment(EXPERIMENT)
    root = (sqlite_file(uri) or Path("mlruns/mlflow.db")).resolve().parent / "artifacts"
    return client.create_experiment(EXPERIMENT, artifact_location=root.as_uri())


# What a release leaves there


def find_version(client: MlflowClient, name: str, identity: str) -> ModelVersion | None:
    """The model version that carries this release, if an earlier attempt made it."""
    found = client.search_model_versions(f"name='{name}' and tags.`{RELEASE_TAG}`='{identity}'")
    return found[0] if found else None


def log_release(
    client: MlflowClient,
    uri: str,
    folder: Path,
    settings: Settings,
    release: Mapping[str, Any],
    steps: Mapping[str, Any],
    identity: str,
) -> tuple[dict[str, Any], ModelVersion | None]:
    """Log everything in a new run and, when all is there and answers as measured, create the model version.

    The release with that last gate, and the version; None where the gate refused it and refused ones are not kept.
    """
    tags = release_tags(release, steps, identity)
    experiment = experiment_id(client, uri)
    place = {PLACE: f"{release['model']} on {socket.gethostname()}"}
    end_abandoned_runs(client, experiment, place[PLACE])
    run = client.create_run(experiment, run_name=identity[:8], tags=tags | place).info.run_id
    try:
        log_numbers(client, run, settings, release, steps["edit"]["losses"])
        pages = read_evidence(folder) | {"release": release}
        client.log_text(run, render_report(pages), "report.html")  # overwritten once the version is known
        for path in itertools.chain(*map(folder.glob, ARTIFACTS)):
            if path.name != "release.json":  # an earlier release's; this one's follows
                client.log_artifact(run, str(path))
        if settings.registry.store == "model":  # else the version itself is the patch
            client.log_artifacts(run, str(folder / "patch"), "patch")
        model = log_model(client, experiment, run, folder, settings)
        source = model.artifact_location  # not models:/ID, which a database store would seek in the process-wide store
        release = ask_again(release, source, uri, folder, settings, steps)
        version = None
        if worth_keeping(release, settings):
            tags[STATUS_TAG] = release["status"]
            client.set_tag(run, STATUS_TAG, release["status"])
            client.log_dict(run, release, "release.json")  # whoever promotes the version reads its gates there
            ensure_registered_model(client, release["model"])
            version = client.create_model_version(release["model"], source, run, tags, model_id=model.model_id)
    except BaseException:
        client.set_terminated(run, "FAILED")
        raise
    client.set_terminated(run, "FINISHED")
    return release, version


def ask_again(
    release: Mapping[str, Any], source: str, uri: str, folder: Path, settings: Settings, steps: Mapping[str, Any]
) -> dict[str, Any]:
    """The release after the gate that fetches the model from the registry and asks it a sample of the edits."""
    from factpatch.evaluation.reload import evenly_spread, moved_answers
    from factpatch.preflight.shared_model import make_room

    rows = evenly_spread(steps["evaluate"]["edits"], settings.gates.reload)
    if not rows:
        return dict(release)
    make_room(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".reload.") as temporary:
        stored = fetch_stored(source, uri, Path(temporary), settings.model.path)
        return with_gate(release, judge_reload(len(rows), moved_answers(stored.model, rows, settings, stored.patch)))


def end_abandoned_runs(client: MlflowClient, experiment: str, place: str) -> None:
    """Give runs that a killed release left as running their true state: one release at a time runs in a place."""
    for run in client.search_runs([experiment], f"attributes.status = 'RUNNING' and tags.`{PLACE}` = \"{place}\""):
        client.set_terminated(run.info.run_id, "KILLED")


def release_tags(release: Mapping[str, Any], steps: Mapping[str, Any], identity: str) -> dict[str, str]:
    """Status and every digest, as tags of the run and the version."""
    digests = dict(release["digests"])
    dvc = {f"dvc.{name}": digest for name, digest in digests.pop("dvc").items()}
    source = steps["lineage"]["edits"] if steps["lineage"] else {}
    revision = {"mlflow.source.git.commit": source["revision"]} if source.get("revision") else {}
    named = {f"factpatch.{name}": digest for name, digest in {**digests, **dvc}.items()}
    return {RELEASE_TAG: identity, STATUS_TAG: release["status"], **named, **revision, **ledger_tag(source)}


def ledger_tag(source: Mapping[str, Any]) -> dict[str, str]:
    """The ledger that the edits came from, as lineage tells it; whoever releases next compares."""
    if not source.get("place"):
        return {}
    origin = Origin(source["place"], source["inside"], None if source["dirty"] else source["revision"])
    return {LEDGER_TAG: json.dumps(asdict(origin))}


def log_numbers(
    client: MlflowClient, run: str, settings: Settings, release: Mapping[str, Any], losses: list[float]
) -> None:
    """Settings as parameters, everything measured as metrics, and the loss epoch by epoch."""
    now = int(time.time() * 1000)
    metrics = [Metric(name, value, now, 0) for name, value in named_numbers(release)]
    metrics += [Metric("loss", loss, now, epoch) for epoch, loss in enumerate(losses, start=1)]
    params = [
        Param(f"{section}.{key}", value if isinstance(value, str) else json.dumps(value))
        for section, values in shown_settings(settings).items()
        for key, value in values.items()
    ]
    for start in range(0, len(metrics), ENTRIES_AT_ONCE):
        client.log_batch(run, metrics=metrics[start : start + ENTRIES_AT_ONCE])
    for start in range(0, len(params), ENTRIES_AT_ONCE):
        client.log_batch(run, params=params[start : start + ENTRIES_AT_ONCE])


def ensure_registered_model(client: MlflowClient, name: str) -> None:
    """Create the registered model unless it is there."""
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def name_candidate(client: MlflowClient, found: ModelVersion) -> str:
    """Make a new version that passed `candidate`; the version's status, which a version promoted before keeps."""
    status = found.tags[STATUS_TAG]
    if status == "registered":
        client.set_registered_model_alias(found.name, "candidate", str(found.version))
    return status
