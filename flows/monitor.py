"""The monitor flow: do released facts still hold in a model that is in use? If too few do, they are edited again."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed, State

from factpatch.addresses import shell_path, without_password
from factpatch.edits.folder import read_ledger
from factpatch.edits.live import LiveFact, live_facts, write_live
from factpatch.errors import InputError
from factpatch.evaluation.serving import is_address
from factpatch.files import digest_value, output_folder, read_json, write_json
from factpatch.settings.config import Settings, load_settings
from integrations.mlflow_registry import open_version, read_answers, read_champion
from tasks.retest import retest

DEPLOYMENT = "release/scheduled"  # what edits again
EDIT_AGAIN_FOLDER = "runs/again"  # its output folder
FACTS_SHOWN = 50  # facts shown on Prefect's page; monitor.json holds all
DECAYED_STATE = "Decayed"  # the name of a flow run's state where something is not as it was released


@flow(name="monitor", log_prints=False, timeout_seconds=24 * 3600)
def monitor(
    model: str = "champion",
    config: str | None = None,
    output: str = "runs/monitor",
    overrides: dict[str, Any] | None = None,
    patch: str | None = None,
) -> State[Any]:
    """Ask a model every live fact and every canary; leave `monitor.json` in `output` and open an edit run if need be.

    `model` is a registered version (number or alias), a model folder, a hub name, or a server's address; `patch` is
    applied to a folder or hub name first. The state is `Completed`, or `Decayed` if facts or canaries are lost, with
    the path of monitor.json.
    """
    settings = load_settings(config, overrides)
    folder = output_folder(output)
    version, facts = find_live(settings, model)
    write_live(folder, facts)
    with _source(model, settings, patch) as (source, chosen):
        path = Path(retest(str(folder), settings, source, chosen))
    value = read_json(path) | {"model": without_password(model), "version": version, "again": None}
    if value["status"] == "decayed":
        value["again"] = edit_again(value, settings, config, overrides or {})
    write_json(path, value)
    create_markdown_artifact(render_monitor(value), "monitor", "Which released facts still hold")
    name = "Completed" if value["status"] == "held" else DECAYED_STATE
    return Completed(name=name, message=" ".join(value["reasons"]), data=str(path))


def find_live(settings: Settings, model: str) -> tuple[str | None, list[LiveFact]]:
    """The version whose facts are asked (the named one, else the champion; None: there is none) and those facts.

    Without a champion all facts of the ledger are asked. Raises InputError if there is nothing to ask, but not for a
    version that was released without facts: its canaries remain.
    """
    entries = read_ledger(settings.edits.path, columns=settings.edits.columns)
    named = is_version(model)
    if not named and read_champion(settings.registry) is None:
        version, answers, facts = None, None, live_facts(entries, None)
    else:
        version, answers = read_answers(settings.registry, model if named else "champion")
        facts = live_facts(entries, answers)
    if not facts and answers != []:
        whose = f"version {version} of '{settings.registry.name}' holds" if version else "the ledger says"
        raise InputError(f"{whose} no fact of '{settings.edits.path}'; name the edits it was released from")
    return version, facts


def is_version(model: str) -> bool:
    """A name without a slash is a version's number or alias, unless there is such a folder."""
    return "/" not in model and not Path(model).exists()


@contextmanager
def _source(model: str, settings: Settings, patch: str | None) -> Iterator[tuple[str, str | None]]:
    """Where the model's weights or its server are, and the patch to apply, for as long as the block runs."""
    if is_version(model):
        with tempfile.TemporaryDirectory(prefix="factpatch.") as folder:
            stored = open_version(settings.registry, model, Path(folder), settings.model.path)
            yield stored.model, str(stored.patch) if stored.patch else patch
        return
    if not is_address(model):
        from factpatch.models.loading import check_source

        check_source(model)
    yield model, patch


def edit_again(
    value: Mapping[str, Any], settings: Settings, config: str | None, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Start the release deployment where a Prefect server is, else name the command. One loss opens one run.

    A checkpoint is edited itself; what a version or a server has lost is edited into the configured base model anew.
    The run is only named where `registry.promote` is `never`, and for a server: nobody knows what stands behind it.
    """
    model = value["model"]
    rebuilt = is_version(model) or is_address(model)
    changed = {"edits.mode": "rebuild"} if rebuilt else {"model.path": model}
    command = f"factpatch run {'--set edits.mode=rebuild' if rebuilt else f'--model {shell_path(model)}'}"
    told: dict[str, Any] = {"command": command, "run": None, "state": None}
    if settings.registry.promote == "never" or is_address(model) or not os.environ.get("PREFECT_API_URL"):
        return told
    from prefect.client.schemas import FlowRun
    from prefect.deployments import run_deployment
    from prefect.exceptions import ObjectNotFound

    loss = [model, value["version"], sorted(row["id"] for row in value["decayed"])]
    parameters = {
        "config": config,
        "overrides": {**overrides, **changed},
        "only_pending": False,
        "output": EDIT_AGAIN_FOLDER,
    }
    try:
        key = f"again-{digest_value(loss)}"
        run = cast(
            FlowRun, run_deployment(DEPLOYMENT, parameters=parameters, timeout=0, as_subflow=False, idempotency_key=key)
        )
    except ObjectNotFound:
        return told
    return told | {"run": run.name, "state": run.state.name if run.state else None}


def render_monitor(value: Mapping[str, Any]) -> str:
    """The result as markdown, with every text from edits and models escaped."""
    from factpatch.report.card import plain

    version = f"version {value['version']}" if value["version"] else "the ledger"
    lines = [f"# {plain(value['model'])}: {value['status']}", "", *map(plain, value["reasons"]), ""]
    lines += [f"Asked: what {version} holds and the ledger still says.", ""]
    for name in ("decayed", "unlearnt"):
        if rows := value[name]:
            lines += [f"## {name.capitalize()}: {len(rows)}", "", "| fact | wanted | says now |", "|---|---|---|"]
            cells = ([plain(row[key]) for key in ("prompt", "target", "output")] for row in rows[:FACTS_SHOWN])
            lines += [*(f"| {' | '.join(row)} |" for row in cells), ""]
    return "\n".join([*lines, plain(next_step(value))]) + "\n"


def next_step(value: Mapping[str, Any]) -> str:
    """What happens, or is to be done, about facts that were lost."""
    again = value["again"]
    if again is None:
        return "Nothing is to be edited again."
    if again["run"]:
        return f"Edited again by the run {again['run']} of {DEPLOYMENT} ({again['state']})."
    return f"To edit them again: {again['command']}"


def describe_monitor(value: Mapping[str, Any]) -> list[str]:
    """The result in lines for a terminal."""
    lines = [f"{value['model']}: {value['status']}", *value["reasons"]]
    for name in ("decayed", "unlearnt"):
        for row in value[name]:
            asked, said, wanted = (json.dumps(row[key], ensure_ascii=False) for key in ("prompt", "output", "target"))
            lines.append(f"{name:<8}  {row['id']}  {asked}  {said}, not {wanted}")
    return [*lines, next_step(value)]
