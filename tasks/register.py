"""Registration in MLflow: a run with every number, a model version that MLflow can serve, and the aliases.

Aliases: `candidate` is the last version whose gates passed, `champion` the one in use, `previous` the one before it.
The order of writes keeps the registry right at every moment: all is logged first, the version is created last and with
its tags, and `champion` moves in one step from one whole version to another.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlflow.pyfunc
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModel, LoggedModelOutput, Metric, Param
from mlflow.entities.model_registry import ModelVersion
from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from prefect import task

import factpatch
from factpatch.config import RegistrySettings, Settings, to_dict
from factpatch.errors import FactpatchError, InputError, RefusedError
from factpatch.evaluation.gates import judge
from factpatch.files import new_folder, output_folder, read_json, write_json, write_text
from factpatch.release import MANIFEST, assemble_release, named_numbers, read_steps, release_id
from factpatch.report import render_report

EXPERIMENT = "factpatch"
SCRIPT = Path(__file__).with_name("served_model.py")
REQUIREMENTS = ("mlflow", "torch", "transformers", "tokenizers", "safetensors", "jinja2", "pyyaml")
ARTIFACTS = ("*.json", "*.jsonl", "*.csv")
RELEASE, STATUS = "factpatch.release", "factpatch.status"  # tags of runs and versions
BATCH = 100  # entries that MLflow takes at once, whatever their kind


def _worth_repeating(task: Any, run: Any, state: Any) -> bool:
    """A store that is busy or away comes back; bad input and refusals stay."""
    return not isinstance(state.result(raise_on_failure=False), (InputError, RefusedError))


@task(
    name="register",
    retries=3,
    retry_delay_seconds=[2, 10, 30],
    retry_condition_fn=_worth_repeating,
    timeout_seconds=2 * 3600,
    persist_result=False,
)
def register(output: str, settings: Settings) -> str:
    """Judge the release in `output`, register it, move the aliases; path of release.json. Writes report.html too.

    A release that a gate refuses is registered with status `refused` and moves no alias. Repeating is safe: a release
    has one version, found again by the digest of what it is made of. Raises FactpatchError if MLflow cannot be had.
    """
    started = time.perf_counter()
    folder = output_folder(output)
    steps, manifest = read_steps(folder), read_json(folder / MANIFEST)
    gates = judge(steps["evaluate"], steps["regress"]["tasks"], settings.gates)
    release = assemble_release(settings.registry.name, steps, manifest, gates)
    uri = tracking_uri(settings.registry)
    with connect(uri) as client:
        identity = release_id(folder, gates)
        found = find_version(client, release["model"], identity)
        if found is None:
            found = log_release(client, uri, folder, settings, release, steps, identity)
        number, run = str(found.version), found.run_id
        release["status"] = move_aliases(client, found, settings.registry.promote)
        aliases = client.get_registered_model(release["model"]).aliases
        release["version"] = number
        release["aliases"] = sorted(alias for alias, target in aliases.items() if str(target) == number)
        release |= {"run": run, "experiment": EXPERIMENT, "tracking_uri": without_password(uri)}
        release["timings"]["register"] = round(time.perf_counter() - started, 3)
        write_text(folder / "report.html", report_page(release, steps))
        write_json(folder / "release.json", release)
        for name in ("report.html", "release.json"):
            client.log_artifact(run, str(folder / name))
    return str(folder / "release.json")


def report_page(release: Mapping[str, Any], steps: Mapping[str, Any]) -> str:
    """The text of `report.html`."""
    return render_report(release, steps["evaluate"], steps["regress"], steps["localize"], steps["edit"])


# Where MLflow is


def tracking_uri(settings: RegistrySettings) -> str:
    """The settings' address, else MLFLOW_TRACKING_URI, else SQLite in `mlruns/` of the current folder."""
    default = f"sqlite:///{Path('mlruns').resolve() / 'mlflow.db'}"
    return settings.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default


def without_password(uri: str) -> str:
    """The address as it may be shown."""
    password = urlsplit(uri).password
    return uri.replace(f":{password}@", ":***@", 1) if password else uri


@contextmanager
def connect(uri: str) -> Iterator[MlflowClient]:
    """A client that talks to `uri` alone, whatever the process-wide settings are; its failures become one line."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)
    try:
        yield MlflowClient(uri, uri)
    except (MlflowException, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        kind = InputError if getattr(error, "error_code", "") == "INVALID_PARAMETER_VALUE" else FactpatchError
        raise kind(f"MLflow at '{without_password(uri)}': {reason}") from error


def experiment_id(client: MlflowClient, uri: str) -> str:
    """The experiment's id, made if absent. A server says itself where artifacts go; a database keeps them beside it."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return found.experiment_id
    if uri.startswith("sqlite:///"):
        root: Path | None = Path(uri.removeprefix("sqlite:///")).resolve().parent / "artifacts"
    else:
        root = None if urlsplit(uri).scheme in {"http", "https"} else Path("mlruns/artifacts").resolve()
    return client.create_experiment(EXPERIMENT, artifact_location=root.as_uri() if root else None)


# What a release leaves there


def find_version(client: MlflowClient, name: str, identity: str) -> ModelVersion | None:
    """The model version that carries this release, if an earlier attempt made it."""
    found = client.search_model_versions(f"name='{name}' and tags.`{RELEASE}`='{identity}'")
    return found[0] if found else None


def log_release(
    client: MlflowClient,
    uri: str,
    folder: Path,
    settings: Settings,
    release: Mapping[str, Any],
    steps: Mapping[str, Any],
    identity: str,
) -> ModelVersion:
    """Log everything in a new run and, when all is there, create the model version."""
    tags = release_tags(release, steps, identity)
    experiment = experiment_id(client, uri)
    run = client.create_run(experiment, run_name=identity[:8], tags=tags).info.run_id
    try:
        log_numbers(client, run, settings, release, steps["edit"]["losses"])
        client.log_text(run, report_page(release, steps), "report.html")  # overwritten once the version is known
        for path in itertools.chain(*map(folder.glob, ARTIFACTS)):
            if path.name != "release.json":  # an earlier release's; this one's follows
                client.log_artifact(run, str(path))
        client.log_artifacts(run, str(folder / "patch"), "patch")
        model = log_model(client, experiment, run, folder, settings)
        ensure_registered_model(client, release["model"])
        source = model.artifact_location  # not models:/ID, which a database store would seek in the process-wide store
        version = client.create_model_version(release["model"], source, run, tags, model_id=model.model_id)
    except BaseException:
        client.set_terminated(run, "FAILED")
        raise
    client.set_terminated(run, "FINISHED")
    return version


def release_tags(release: Mapping[str, Any], steps: Mapping[str, Any], identity: str) -> dict[str, str]:
    """Status and every digest, as tags of the run and the version."""
    digests = dict(release["digests"])
    dvc = {f"dvc.{name}": digest for name, digest in digests.pop("dvc").items()}
    source = steps["lineage"]["edits"] if steps["lineage"] else {}
    revision = {"mlflow.source.git.commit": source["revision"]} if source.get("revision") else {}
    named = {f"factpatch.{name}": digest for name, digest in {**digests, **dvc}.items()}
    return {RELEASE: identity, STATUS: release["status"], **named, **revision}


def log_numbers(
    client: MlflowClient, run: str, settings: Settings, release: Mapping[str, Any], losses: list[float]
) -> None:
    """Settings as parameters, everything measured as metrics, and the loss epoch by epoch."""
    now = int(time.time() * 1000)
    metrics = [Metric(name, value, now, 0) for name, value in named_numbers(release)]
    metrics += [Metric("loss", loss, now, epoch) for epoch, loss in enumerate(losses, start=1)]
    params = [
        Param(f"{section}.{key}", value if isinstance(value, str) else json.dumps(value))
        for section, values in to_dict(settings).items()
        for key, value in values.items()
    ]
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run, metrics=metrics[start : start + BATCH])
    client.log_batch(run, params=params)


def log_model(client: MlflowClient, experiment: str, run: str, folder: Path, settings: Settings) -> LoggedModel:
    """Upload the whole edited model with the script that serves it; no pickle."""
    from factpatch.patch import export_patch

    model = client.create_logged_model(experiment, name="model", source_run_id=run)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".register.") as temporary:
        exported = export_patch(settings.model, folder / "patch", Path(temporary) / "model")
        mlflow.pyfunc.save_model(
            Path(temporary) / "mlflow",
            python_model=SCRIPT,
            artifacts={"model": str(exported)},
            code_paths=[str(Path(factpatch.__file__).parent)],
            # the local part of a version, such as torch's +cpu, is not on any index
            pip_requirements=[f"{name}=={installed(name).partition('+')[0]}" for name in REQUIREMENTS],
            model_config={
                "dtype": settings.model.dtype,
                "chat_template": settings.edits.chat_template,
                "protocol": settings.evaluation.protocol,
                "max_new_tokens": settings.evaluation.max_new_tokens,
                "batch_size": settings.evaluation.batch_size,
            },
            mlflow_model=Model(run_id=run, model_id=model.model_id),
        )
        client.log_model_artifacts(model.model_id, str(Path(temporary) / "mlflow"))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run, [LoggedModelOutput(model.model_id, step=0)])
    return model


def ensure_registered_model(client: MlflowClient, name: str) -> None:
    """Create the registered model unless it is there."""
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


# Aliases


def move_aliases(client: MlflowClient, found: ModelVersion, wanted: bool) -> str:
    """Make a new version that passed `candidate` and, if wanted, `champion`; the version's final status.

    A version that was promoted once stays where later promotions and rollbacks have put it.
    """
    name, version, status = found.name, str(found.version), found.tags[STATUS]
    if status == "registered":
        client.set_registered_model_alias(name, "candidate", version)
        if wanted:
            _promote(client, name, version)
            return "promoted"
    return status


def promote(name: str, version: str, uri: str) -> str:
    """Make a version (number or alias) `champion` and the present one `previous`; the version's number.

    Raises InputError if there is no such version, RefusedError if a gate refused it. Promoting the champion again
    changes nothing.
    """
    with connect(uri) as client:
        found = _find(client, name, version)
        status = found.tags.get(STATUS)
        if status not in {"registered", "promoted"}:
            why = "its gates refused it" if status == "refused" else "it was not released by factpatch"
            raise RefusedError(f"version {version} of '{name}' is not promoted: {why}")
        _promote(client, name, str(found.version))
    return str(found.version)


def rollback(name: str, uri: str) -> str:
    """Swap `champion` and `previous`; the number of the version that is champion now."""
    with connect(uri) as client:
        aliases = _aliases(client, name)
        champion, previous = aliases.get("champion"), aliases.get("previous")
        if champion is None or previous in (None, champion):
            raise InputError(f"model '{name}' has no previous version to roll back to")
        client.set_registered_model_alias(name, "champion", previous)  # first, so that a crash here loses nothing
        client.set_registered_model_alias(name, "previous", champion)
    return previous


def export_version(name: str, version: str, uri: str, output: Path) -> Path:
    """Save the edited model of a version (number or alias) as an ordinary Hugging Face folder, in place of nothing."""
    with connect(uri) as client, new_folder(output) as temporary:
        number = str(_find(client, name, version).version)
        source = client.get_model_version_download_uri(name, number)
        model = download_artifacts(f"{source}/artifacts/model", dst_path=str(temporary), tracking_uri=uri)
        for path in Path(model).iterdir():
            path.rename(temporary / path.name)
        Path(model).rmdir()
    return output


def _find(client: MlflowClient, name: str, version: str) -> ModelVersion:
    """The version of that number or alias; InputError if there is none."""
    try:
        return client.get_model_version(name, _aliases(client, name).get(version, version))
    except MlflowException as error:
        if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise
        known = [str(found.version) for found in client.search_model_versions(f"name='{name}'")]
        there = f"there are {', '.join(sorted(known, key=int))}" if known else "nothing is registered under this name"
        raise InputError(f"model '{name}' has no version '{version}'; {there}") from error


def _promote(client: MlflowClient, name: str, version: str) -> None:
    champion = _aliases(client, name).get("champion")
    if champion is not None and champion != version:
        client.set_registered_model_alias(name, "previous", champion)
    client.set_registered_model_alias(name, "champion", version)
    client.set_model_version_tag(name, version, STATUS, "promoted")


def _aliases(client: MlflowClient, name: str) -> dict[str, str]:
    """Version by alias; empty for a model that is not registered."""
    try:
        return {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}
