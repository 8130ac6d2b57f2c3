"""Promotion in MLflow: which registered version is in use, who decided so, and the way back.

Aliases: `candidate` is the last version whose gates passed, `champion` the one in use, `previous` the one before it.
Every move is written down as a tag of the registered model, under a name of its own that nothing writes again but to
note that the move is done: so the history lives and travels with the registry, whatever store that is. The order of
writes keeps `champion` on a whole version at every moment; repeating a move that was cut short finishes it.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR
from mlflow.exceptions import MlflowException
from prefect import task

from factpatch.edits.origin import Origin
from factpatch.errors import InputError, RefusedError
from factpatch.files import new_folder, read_json
from factpatch.release.pending import RegisteredVersion
from factpatch.release.provenance import PROVENANCE_FILE as BASIS
from factpatch.release.provenance import Provenance, parse_provenance
from factpatch.release.publishing import RELEASE_FILES, write_release
from factpatch.release.registry import lock_file, locked, reaching, tracking_uri
from factpatch.settings.config import RegistrySettings, Settings
from factpatch.training_data.carry_over import CARRY_OVER_FILE as COMPANIONS
from tasks import mlflow_client

STATUS_TAG = "factpatch.status"  # tag of a version: registered, refused or promoted
LEDGER_TAG = "factpatch.ledger"  # tag of a version: the ledger that it was released from
HISTORY_TAG = "factpatch.history."  # begins the names of the tags that record moves; a time follows
LOCK_PATIENCE = 60.0  # seconds to wait while another process moves aliases


@dataclass(frozen=True)
class Move:
    """One line of the history: `champion` went from version `before` to `version`; `done` once all is written."""

    action: Literal["promote", "rollback"]
    version: str
    before: str | None
    who: str
    when: str  # ISO time, UTC
    why: str
    done: bool = False


def _worth_repeating(task: Any, run: Any, state: Any) -> bool:
    """A store that is busy or away comes back; bad input and refusals stay."""
    return not isinstance(state.result(raise_on_failure=False), (InputError, RefusedError))


_PATIENTLY: Any = {
    "retries": 3,
    "retry_delay_seconds": [2, 10, 30],
    "retry_condition_fn": _worth_repeating,
    "timeout_seconds": 600,
    "persist_result": False,
}


@task(name="promote version", **_PATIENTLY)
def promote_version(registry: RegistrySettings, version: str, who: str, why: str) -> str:
    """`promote`, as a step of a flow."""
    return promote(registry, version, who, why)


@task(name="promote", **_PATIENTLY)
def promote_release(output: str, settings: Settings, who: str, why: str) -> str:
    """Make the version in `output` the champion and say so in its release.json and report.html; path of the former.

    A release that was refused, or promoted before, stays as it is.
    """
    folder = Path(output)
    path = folder / "release.json"
    release = read_json(path)
    if release["status"] != "registered":
        return str(path)
    promote(settings.registry, release["version"], who, why)
    with connect_registry(settings.registry) as client:
        number, aliases = release["version"], _aliases(client, release["model"])
        release["status"] = "promoted"
        release["aliases"] = sorted(alias for alias, target in aliases.items() if target == number)
        card = write_release(folder, release)
        for name in RELEASE_FILES:
            client.log_artifact(release["run"], str(folder / name))
        client.update_model_version(release["model"], number, card)
    return str(path)


def promote(registry: RegistrySettings, version: str, who: str, why: str) -> str:
    """Make a version (number or alias) `champion` and the present one `previous`; the version's number.

    Raises InputError if there is no such version or no gate judged it, RefusedError if a gate refused it. Promoting
    the champion again changes nothing, but finishes what was cut short.
    """
    with connect_registry(registry) as client, _moving(registry):
        name, found = registry.name, _find(client, registry.name, version)
        _check_gates(client, found)
        champion, number = _aliases(client, name).get("champion"), str(found.version)
        begun = _unfinished(client, name, "promote", number)
        if champion != number:
            key, move = _begin(client, name, Move("promote", number, champion, who, _now(), why))
            if champion is not None:
                client.set_registered_model_alias(name, "previous", champion)
            client.set_registered_model_alias(name, "champion", number)
            begun = key, move
        if begun or found.tags.get(STATUS_TAG) != "promoted":
            client.set_model_version_tag(name, number, STATUS_TAG, "promoted")
        if begun:
            _finish(client, name, *begun)
    return number


def rollback(registry: RegistrySettings, who: str, why: str) -> str:
    """Swap `champion` and `previous`; the number of the version that is champion now. InputError if there is none."""
    with connect_registry(registry) as client, _moving(registry):
        name, aliases = registry.name, _aliases(client, registry.name)
        champion, previous = aliases.get("champion"), aliases.get("previous")
        begun = _unfinished(client, name, "rollback", champion)
        if begun is None:
            if champion is not None and previous in (None, champion):  # a promotion ended before it moved `champion`
                previous = _came_from(client, name, champion)
            if champion is None or previous is None:
                raise InputError(f"model '{name}' has no previous version to roll back to")
            _find(client, name, previous)
            begun = _begin(client, name, Move("rollback", previous, champion, who, _now(), why))
            client.set_registered_model_alias(name, "champion", previous)
        key, move = begun
        if move.before is not None:
            client.set_registered_model_alias(name, "previous", move.before)
        _finish(client, name, key, move)
    return move.version


def read_history(registry: RegistrySettings) -> list[Move]:
    """Every move of `champion`, oldest first; empty for a model that is not registered."""
    with connect_registry(registry) as client:
        return [move for _, move in _moves(client, registry.name)]


def read_champion(registry: RegistrySettings) -> RegisteredVersion | None:
    """The facts that the champion was released with; None without a champion."""
    with connect_registry(registry) as client:
        number = _aliases(client, registry.name).get("champion")
        return _held(client, client.get_model_version(registry.name, number)) if number else None


def read_newest(registry: RegistrySettings) -> RegisteredVersion | None:
    """The facts of the version registered last, whatever became of it; None without one."""
    with connect_registry(registry) as client:
        found = client.search_model_versions(f"name='{registry.name}'", 1, ["version_number DESC"])
        return _held(client, found[0]) if found and STATUS_TAG in found[0].tags else None


def fetch_patch(registry: RegistrySettings, version: str, folder: Path) -> Path:
    """Put the patch of a version (number or alias), and the texts that it leaves to the next one, into a folder; the
    path of the patch."""
    with connect_registry(registry) as client:
        run = _find(client, registry.name, version).run_id or ""
        if COMPANIONS in {file.path for file in client.list_artifacts(run)}:
            client.download_artifacts(run, COMPANIONS, str(folder))
        return Path(client.download_artifacts(run, "patch", str(folder)))


def read_answers(registry: RegistrySettings, version: str) -> tuple[str, list[dict[str, Any]]]:
    """The number of a version (number or alias), and what it said to each of its edits when it was released."""
    with connect_registry(registry) as client, tempfile.TemporaryDirectory() as folder:
        found = _find(client, registry.name, version)
        return str(found.version), json.loads(_artifact(client, found, "evaluate.json", folder))["edits"]


def export_version(registry: RegistrySettings, version: str, output: Path) -> Path:
    """Save the edited model of a version (number or alias) as an ordinary Hugging Face folder, in place of nothing."""
    with connect_registry(registry) as client, new_folder(output) as temporary:
        name, uri = registry.name, tracking_uri(registry)
        source = client.get_model_version_download_uri(name, str(_find(client, name, version).version))
        model = download_artifacts(f"{source}/artifacts/model", dst_path=str(temporary), tracking_uri=uri)
        for path in Path(model).iterdir():
            path.rename(temporary / path.name)
        Path(model).rmdir()
    return output


@contextmanager
def connect_registry(registry: RegistrySettings) -> Iterator[MlflowClient]:
    """A client that talks to the registry alone, whatever the process-wide settings are; its failures are one line."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)
    uri = tracking_uri(registry)
    with reaching(uri, MlflowException):
        yield mlflow_client(uri)


@contextmanager
def _moving(registry: RegistrySettings) -> Iterator[None]:
    with locked(
        lock_file(registry, "aliases"), f"another process moves the aliases of '{registry.name}'", LOCK_PATIENCE
    ):
        yield


def stopping_gates(gates: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names of those that keep a version back."""
    return [gate["name"] for gate in gates if gate["passed"] is False or gate.get("verdict") == "undecided"]


def _check_gates(client: MlflowClient, found: ModelVersion) -> None:
    """Read the version's gates again, as its run recorded them; raise unless at least one passed and none failed."""
    told = f"version {found.version} of '{found.name}' is not promoted"
    status = found.tags.get(STATUS_TAG)
    if status is None:
        raise InputError(f"{told}: it was not released by factpatch, so no gate passed it")
    try:
        with tempfile.TemporaryDirectory() as folder:
            gates = json.loads(_artifact(client, found, "release.json", folder))["gates"]
    except (MlflowException, OSError, ValueError, KeyError) as error:
        raise InputError(f"{told}: its run holds no release.json, so no gate passed it") from error
    failed = stopping_gates(gates)
    if status == "refused" or failed:
        raise RefusedError(f"{told}: its gates refused it ({', '.join(failed) or 'as its status says'})")
    if not any(gate["passed"] for gate in gates):
        raise InputError(f"{told}: no gate passed it, as none was judged")


def _held(client: MlflowClient, version: ModelVersion) -> RegisteredVersion:
    with tempfile.TemporaryDirectory() as folder:
        validate = json.loads(_artifact(client, version, "validate.json", folder))
        accepted, quarantined = (
            [json.loads(line) for line in _artifact(client, version, name, folder).split("\n") if line]
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
    if BASIS not in {file.path for file in client.list_artifacts(version.run_id or "")}:
        return ()
    place = json.loads(_artifact(client, version, "localize.json", folder))["location"]["name"]
    return parse_provenance(json.loads(_artifact(client, version, BASIS, folder)), place)


def _artifact(client: MlflowClient, version: ModelVersion, name: str, folder: str) -> str:
    """The text of a file that the version's run holds."""
    return Path(client.download_artifacts(version.run_id or "", name, folder)).read_text(encoding="utf-8")


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


def _aliases(client: MlflowClient, name: str) -> dict[str, str]:
    """Version by alias; empty for a model that is not registered."""
    return _of_model(client, name, "aliases")


def _of_model(client: MlflowClient, name: str, what: Literal["aliases", "tags"]) -> dict[str, str]:
    try:
        return {key: str(value) for key, value in getattr(client.get_registered_model(name), what).items()}
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}


# The history


def _moves(client: MlflowClient, name: str) -> list[tuple[str, Move]]:
    tags = _of_model(client, name, "tags")
    return [(key, Move(**json.loads(tags[key]))) for key in sorted(tags) if key.startswith(HISTORY_TAG)]


def _begin(client: MlflowClient, name: str, move: Move) -> tuple[str, Move]:
    key = HISTORY_TAG + move.when
    client.set_registered_model_tag(name, key, json.dumps(asdict(move)))
    return key, move


def _finish(client: MlflowClient, name: str, key: str, move: Move) -> None:
    client.set_registered_model_tag(name, key, json.dumps(asdict(replace(move, done=True))))


def _unfinished(client: MlflowClient, name: str, action: str, champion: str | None) -> tuple[str, Move] | None:
    """The last move, if it is one to the present champion that was cut short after `champion` moved."""
    last = next(reversed(_moves(client, name)), None)
    return last if last and not last[1].done and (last[1].action, last[1].version) == (action, champion) else None


def _came_from(client: MlflowClient, name: str, champion: str) -> str | None:
    """The version that the champion took the place of."""
    moves = [move for _, move in _moves(client, name) if move.done and move.version == champion]
    return moves[-1].before if moves else None


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")  # a name of a tag holds no "+"
