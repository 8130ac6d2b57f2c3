"""Promotion in MLflow: which registered version is in use, who decided so, and the way back.

Aliases: `candidate` is the last version whose gates passed, `champion` the one in use, `previous` the one before it.
Every move is written down as a tag of the registered model, under a name of its own that nothing writes again but to
note that the move is done: so the history lives and travels with the registry, whatever store that is. The order of
writes keeps `champion` on a whole version at every moment; repeating a move that was cut short finishes it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from prefect import task

from factpatch.errors import InputError, RefusedError
from factpatch.files import read_json
from factpatch.release.publishing import RELEASE_FILES, write_release
from factpatch.release.registry import lock_file, locked
from factpatch.settings.config import RegistrySettings, Settings
from integrations.mlflow_registry import (
    RETRIES,
    STATUS_TAG,
    aliases_of,
    artifact_text,
    connect_registry,
    find_version,
    of_model,
)

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


@task(name="promote version", timeout_seconds=600, persist_result=False, **RETRIES)
def promote_version(registry: RegistrySettings, version: str, who: str, why: str) -> str:
    """`promote`, as a step of a flow."""
    return promote(registry, version, who, why)


@task(name="promote", timeout_seconds=600, persist_result=False, **RETRIES)
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
        number, aliases = release["version"], aliases_of(client, release["model"])
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
        name, found = registry.name, find_version(client, registry.name, version)
        _check_gates(client, found)
        champion, number = aliases_of(client, name).get("champion"), str(found.version)
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
        name, aliases = registry.name, aliases_of(client, registry.name)
        champion, previous = aliases.get("champion"), aliases.get("previous")
        begun = _unfinished(client, name, "rollback", champion)
        if begun is None:
            if champion is not None and previous in (None, champion):  # a promotion ended before it moved `champion`
                previous = _came_from(client, name, champion)
            if champion is None or previous is None:
                raise InputError(f"model '{name}' has no previous version to roll back to")
            find_version(client, name, previous)
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
            gates = json.loads(artifact_text(client, found, "release.json", folder))["gates"]
    except (MlflowException, OSError, ValueError, KeyError) as error:
        raise InputError(f"{told}: its run holds no release.json, so no gate passed it") from error
    failed = stopping_gates(gates)
    if status == "refused" or failed:
        raise RefusedError(f"{told}: its gates refused it ({', '.join(failed) or 'as its status says'})")
    if not any(gate["passed"] for gate in gates):
        raise InputError(f"{told}: no gate passed it, as none was judged")


# The history


def _moves(client: MlflowClient, name: str) -> list[tuple[str, Move]]:
    tags = of_model(client, name, "tags")
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
