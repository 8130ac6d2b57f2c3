"""The release flow: from edit requests to a new, gated version of the model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import Task, flow
from prefect.artifacts import create_markdown_artifact
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.states import Completed, State
from prefect.utilities.annotations import quote

from factpatch.edits.accepted import read_accepted
from factpatch.errors import RefusedError
from factpatch.evaluation.canaries import read_canaries
from factpatch.evaluation.judging import check_judge
from factpatch.evaluation.readiness import check_readiness
from factpatch.files import output_folder, read_json
from factpatch.preflight.environment import user_name
from factpatch.preflight.shared_model import share_base_model
from factpatch.release.plan import ReleasePlan
from factpatch.release.provenance import write_provenance
from factpatch.release.record import forms_below
from factpatch.release.registry import lock_file, locked
from factpatch.report import read_evidence, render_card
from factpatch.settings.config import Settings, load_settings, override
from flows.doctor import check_machine
from flows.pending import find_work, note_refusal, refusing_gates
from flows.plan import read_release_plan
from flows.release_mode import choose_release_mode
from flows.takeover import check_ledger
from tasks.edit import edit
from tasks.evaluate import evaluate
from tasks.lineage import lineage
from tasks.localize import localize
from tasks.probes import probes
from tasks.promote import promote_release, promote_version
from tasks.register import register
from tasks.regress import load_tasks, regress
from tasks.unedited import unedited
from tasks.validate import validate

# The order of the steps is written here and nowhere else; each reads what the earlier ones left in the output folder.
STEPS: tuple[Task[..., str], ...] = (validate, probes, localize, edit, evaluate, regress, lineage, register)
UNEDITED: tuple[Task[..., str], ...] = (unedited, lineage, register)  # where no fact is in force, after validate
# What a step gets of the plan besides output folder and settings; run by itself, it looks that up.
FROM_PLAN = {"validate": ("ledger",), "lineage": ("ledger_source",)}
SECONDS_TO_DECIDE = 7 * 86400  # that a person has, where registry.promote is `wait`
SECONDS_TO_LOOK = 10  # between two looks whether the person has decided
REFUSED = "Refused"  # the name of a flow run's state where a gate stopped its version


class Decision(RunInput):
    """What a person is asked before a version becomes the champion."""

    promote: bool
    who: str
    why: str = "approved on Prefect's page"


@flow(name="release", log_prints=False, timeout_seconds=(48 + 7 * 24) * 3600)
def release(
    config: str | None = None,
    output: str = "runs/latest",
    overrides: dict[str, Any] | None = None,
    only_pending: bool = False,
    adopt: bool = False,
) -> str | State[Any]:
    """Run every step and return the path of `release.json`; the state is `Refused` where a gate said no.

    `config` names a params.yaml; `overrides` maps dotted setting names (`model.path`) to values that win over it. With
    `only_pending` nothing is run, and the state is `Skipped`, where a release would bring nothing new. With `adopt` it
    may replace the champion of another ledger. Raises RefusedError, naming the other one, while a release of the same
    model runs.
    """
    settings = load_settings(config, overrides)
    check_machine("release", settings, output)
    folder = str(output_folder(output))
    with _alone(settings, folder), share_base_model():
        plan = read_release_plan(settings, config, folder, compare=only_pending)
        check_ledger(plan, adopt)
        work = find_work(plan) if only_pending else None
        if work and not work.needs_release:
            return Completed(name="Skipped", message=str(work))
        if work:
            print(f"release: {work}", flush=True)
        canaries = read_canaries(settings.gates.canaries)
        check_judge(settings.judge)
        load_tasks(settings.capability)  # what cannot be scored or judged is told before hours of editing
        first, second, *others = STEPS
        _run([first], plan)
        if read_accepted(folder):
            _run([second], plan)
        plan = replace(plan, edits=tuple(read_accepted(folder)))
        if plan.edits:
            check_readiness(plan.edits, canaries, settings.gates)
        plan = choose_release_mode(plan)
        write_provenance(Path(folder), plan.provenance, plan.configured or plan.provenance)
        steps = others if plan.edits else UNEDITED
        plan = _run_with_margin(steps, plan)
        refused = refusing_gates(folder)
        if refused and plan.mode and plan.mode.name == "incremental" and settings.edits.mode == "auto":
            plan = _run_with_margin(steps, choose_release_mode(plan, refused), refused)
        note_refusal(plan)
        if settings.registry.promote == "auto":
            promote_release(folder, settings, f"{user_name()}, automatically", "every gate passed")
        path, gates = str(Path(folder) / "release.json"), refusing_gates(folder)
        version, card = read_json(Path(path)), _show(folder)
    if settings.registry.promote == "wait":
        _promote_when_approved(folder, settings, version, card)
    return Completed(name=REFUSED, message=f"refused by {', '.join(gates)}", data=path) if gates else path


def _alone(settings: Settings, folder: str) -> AbstractContextManager[None]:
    """One release of a model at a time."""
    doing = f"a release of '{settings.registry.name}' runs into '{folder}'"
    return locked(lock_file(settings.registry, "release"), doing)


def _show(folder: str) -> str:
    """Put the release's card on Prefect's page; the card."""
    card = render_card(read_evidence(folder))
    create_markdown_artifact(card, "release", "What was edited and what it did")
    return card


def _run(steps: Sequence[Task[..., str]], plan: ReleasePlan) -> None:
    """Steps that follow each other, each with its part of the plan."""
    for step in steps:
        own = {name: quote(getattr(plan, name)) for name in FROM_PLAN.get(step.name, ())}  # not searched by Prefect
        step(plan.output, plan.settings, **own)


def _run_with_margin(steps: Sequence[Task[..., str]], plan: ReleasePlan, refused: Sequence[str] = ()) -> ReleasePlan:
    """Run the steps; while what was evaluated is below the floors in a form in which it will be served, train and
    evaluate anew with the next of `serving.raise_confidence` first. The plan that was carried out."""
    if evaluate not in steps:
        _run(steps, plan)
        return plan
    training, rest = steps[: steps.index(evaluate) + 1], steps[steps.index(evaluate) + 1 :]
    _run(training, plan)
    for confidence in plan.settings.serving.raise_confidence:
        lost = forms_below(plan.output, plan.settings)
        if not lost:
            break
        print(
            f"release: below the floors as {', '.join(lost)}; trained with training.confidence {confidence}", flush=True
        )
        changed = override(plan.settings, {"training.confidence": confidence})
        plan = choose_release_mode(replace(plan, settings=changed), refused)
        _run(training[training.index(edit) :], plan)
    _run(rest, plan)
    return plan


def _promote_when_approved(folder: str, settings: Settings, version: dict[str, Any], card: str) -> None:
    """Ask about a version on Prefect's page. Without a server that a person can reach, `factpatch promote` answers.

    Meanwhile other releases may run, also into the same folder: it is the version asked about that is promoted, and the
    folder says so only while it is still of that one.
    """
    if version["status"] != "registered" or not os.environ.get("PREFECT_API_URL"):
        return
    asked = Decision.with_initial_data(description=card, promote=False, who=user_name())
    try:
        decision = pause_flow_run(
            wait_for_input=asked,
            timeout=SECONDS_TO_DECIDE,
            poll_interval=SECONDS_TO_LOOK,
            key=f"promote-{version['version']}",
        )
    except FlowPauseTimeout:
        return  # the version stays the candidate
    if not decision.promote:
        return
    promote_version(settings.registry, version["version"], decision.who, decision.why)
    with suppress(RefusedError), _alone(settings, folder):
        if read_json(Path(folder) / "release.json") == version:
            promote_release(folder, settings, decision.who, decision.why)
            _show(folder)
