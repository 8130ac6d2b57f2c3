"""MLflow's registry as steps need it: a client of its own, and what a registered version is and holds."""

from __future__ import annotations

import json
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR
from mlflow.exceptions import MlflowException

from factpatch.edits.origin import Origin
from factpatch.errors import InputError, RefusedError
from factpatch.files import new_folder
from factpatch.release.pending import RegisteredVersion
from factpatch.release.provenance import PROVENANCE_FILE, Provenance, parse_provenance
from factpatch.release.registry import reaching, tracking_uri
from factpatch.settings.config import RegistrySettings
from factpatch.training_data.carry_over import CARRY_OVER_FILE
from integrations.stored_model import StoredModel, fetch_stored, fetch_stored_patch, save_stored

STATUS_TAG = "factpatch.status"  # tag of a version: registered, refused or promoted
LEDGER_TAG = "factpatch.ledger"  # tag of a version: the ledger that it was released from


def _worth_repeating(task: Any, run: Any, state: Any) -> bool:
    """A store that is busy or away comes back; bad input and refusals stay."""
    return not isinstance(state.result(raise_on_failure=False), (InputError, RefusedError))


RETRIES: Any = {"retries": 3, "retry_delay_seconds": [2, 10, 30], "retry_condition_fn": _worth_repeating}


@contextmanager
def connect_registry(registry: RegistrySettings) -> Iterator[MlflowClient]:
    """A client that talks to the registry alone, whatever the process-wide settings are; its failures are one line."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)
    uri = tracking_uri(registry)
    with reaching(uri, MlflowException):
        yield mlflow_client(uri)


def mlflow_client(uri: str) -> MlflowClient:
    """A client of MLflow's store at that address, whatever the current folder is called."""
    root = Path("mlruns").resolve()
    if re.search("[':]", str(root)) and not uri.startswith("http"):
        # MLflow pastes the folder into the SQL that writes a new database's first experiment, unless it is given one
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        SqlAlchemyStore(uri, root.as_uri())
    return MlflowClient(uri, uri)


def read_champion(registry: RegistrySettings) -> RegisteredVersion | None:
    """The facts that the champion was released with; None without a champion."""
    with connect_registry(registry) as client:
        number = aliases_of(client, registry.name).get("champion")
        return _registered_version(client, client.get_model_version(registry.name, number)) if number else None


def read_newest(registry: RegistrySettings) -> RegisteredVersion | None:
    """The facts of the version registered last, whatever became of it; None without one."""
    with connect_registry(registry) as client:
        found = client.search_model_versions(f"name='{registry.name}'", 1, ["version_number DESC"])
        return _registered_version(client, found[0]) if found and STATUS_TAG in found[0].tags else None


def fetch_patch(registry: RegistrySettings, version: str, folder: Path) -> Path:
    """Put the patch of a version (number or alias), and the texts that it leaves to the next one, into a folder; the
    path of the patch."""
    with connect_registry(registry) as client:
        found = find_version(client, registry.name, version)
        run = found.run_id or ""
        held = {file.path for file in client.list_artifacts(run)}
        if CARRY_OVER_FILE in held:
            client.download_artifacts(run, CARRY_OVER_FILE, str(folder))
        if "patch" in held:  # of a version that stores the whole model
            return Path(client.download_artifacts(run, "patch", str(folder)))
        stored = fetch_stored_patch(str(found.source), tracking_uri(registry), folder)
        if stored is None:
            raise InputError(f"version {found.version} of '{registry.name}' holds no patch")
        return stored if stored.is_relative_to(folder) else Path(shutil.copytree(stored, folder / "patch"))


@dataclass(frozen=True)
class ReleasedVersion:
    """A registered version: its number, the address of what it stores, and its release.json."""

    number: str
    source: str
    release: dict[str, Any]


def read_version(registry: RegistrySettings, version: str) -> ReleasedVersion:
    """A version (number or alias) with its release.json."""
    with connect_registry(registry) as client, tempfile.TemporaryDirectory() as folder:
        found = find_version(client, registry.name, version)
        release = json.loads(artifact_text(client, found, "release.json", folder))
        return ReleasedVersion(str(found.version), str(found.source), release)


def read_answers(registry: RegistrySettings, version: str) -> tuple[str, list[dict[str, Any]]]:
    """The number of a version (number or alias), and what it said to each of its edits when it was released."""
    with connect_registry(registry) as client, tempfile.TemporaryDirectory() as folder:
        found = find_version(client, registry.name, version)
        return str(found.version), json.loads(artifact_text(client, found, "evaluate.json", folder))["edits"]


def open_version(registry: RegistrySettings, version: str, place: Path, named: str | None = None) -> StoredModel:
    """What a version (number or alias) can be loaded from; as in `fetch_stored`."""
    with connect_registry(registry) as client:
        found = find_version(client, registry.name, version)
        return fetch_stored(str(found.source), tracking_uri(registry), place, named)


def export_version(registry: RegistrySettings, version: str, output: Path, named: str | None = None) -> Path:
    """Save the edited model of a version (number or alias) as an ordinary Hugging Face folder, in place of nothing; the
    base model of one that stores a patch is sought at `named` first."""
    with new_folder(output) as temporary, tempfile.TemporaryDirectory(prefix="factpatch.") as place:
        save_stored(open_version(registry, version, Path(place), named), temporary)
    return output


def _registered_version(client: MlflowClient, version: ModelVersion) -> RegisteredVersion:
    with tempfile.TemporaryDirectory() as folder:
        validate = json.loads(artifact_text(client, version, "validate.json", folder))
        accepted, quarantined = (
            [json.loads(line) for line in artifact_text(client, version, name, folder).split("\n") if line]
            for name in ("accepted.jsonl", "quarantined.jsonl")
        )
        provenances = _provenances(client, version, folder)
    facts, set_aside = (
        frozenset((row["prompt"], row["target"]) for row in rows)
        for rows in (accepted, [entry["edit"] for entry in quarantined])
    )
    files, status = tuple(validate.get("files", ())), version.tags[STATUS_TAG]
    origin = Origin(**json.loads(version.tags[LEDGER_TAG])) if LEDGER_TAG in version.tags else None
    return RegisteredVersion(str(version.version), facts, set_aside, files, status, provenances, origin)


def _provenances(client: MlflowClient, version: ModelVersion, folder: str) -> tuple[Provenance, ...]:
    """What the version rests on; empty for one whose run does not tell."""
    if PROVENANCE_FILE not in {file.path for file in client.list_artifacts(version.run_id or "")}:
        return ()
    place = json.loads(artifact_text(client, version, "localize.json", folder))["location"]["name"]
    return parse_provenance(json.loads(artifact_text(client, version, PROVENANCE_FILE, folder)), place)


def artifact_text(client: MlflowClient, version: ModelVersion, name: str, folder: str) -> str:
    """The text of a file that the version's run holds."""
    return Path(client.download_artifacts(version.run_id or "", name, folder)).read_text(encoding="utf-8")


def find_version(client: MlflowClient, name: str, version: str) -> ModelVersion:
    """The version of that number or alias; InputError if there is none."""
    try:
        return client.get_model_version(name, aliases_of(client, name).get(version, version))
    except MlflowException as error:
        if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise
        known = [str(found.version) for found in client.search_model_versions(f"name='{name}'")]
        there = f"there are {', '.join(sorted(known, key=int))}" if known else "nothing is registered under this name"
        raise InputError(f"model '{name}' has no version '{version}'; {there}") from error


def aliases_of(client: MlflowClient, name: str) -> dict[str, str]:
    """Version by alias; empty for a model that is not registered."""
    return of_model(client, name, "aliases")


def of_model(client: MlflowClient, name: str, what: Literal["aliases", "tags"]) -> dict[str, str]:
    """Aliases or tags of a registered model; empty for one that is not registered."""
    try:
        return {key: str(value) for key, value in getattr(client.get_registered_model(name), what).items()}
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}
