"""Reading what a release goes by: the only place where one looks at ledger, registry and base model to decide."""

from __future__ import annotations

from dataclasses import replace

from factpatch.edits.folder import read_ledger
from factpatch.errors import InputError
from factpatch.release.plan import ReleasePlan
from factpatch.release.provenance import provenance_of
from factpatch.release.refusals import attempt_digest
from factpatch.settings.config import Settings, load_settings
from integrations.mlflow_registry import read_champion, read_newest


def read_plan(settings: Settings, compare: bool) -> ReleasePlan:
    """Ledger, champion and base model as they are now. The newest version is read too where there is no champion, and
    with `compare`, where the ledger is not what the champion holds."""
    champion = read_champion(settings.registry)
    ledger = tuple(read_ledger(settings.edits.path, columns=settings.edits.columns))
    active = [entry.row.values for entry in ledger if entry.state == "active"]
    provenance = provenance_of(settings)
    attempt = attempt_digest(settings, active[: settings.edits.limit], provenance)
    plan = ReleasePlan(settings, ledger, provenance, attempt, champion)
    if champion is None or (compare and (plan.pending or plan.changed)):
        plan = replace(plan, newest=read_newest(settings.registry))
    return plan


def read_release_plan(settings: Settings, config: str | None, output: str, compare: bool) -> ReleasePlan:
    """The plan of a release into a folder, with what is recorded of it: the ledger's revision, and the provenance of
    the settings that `config` has by itself, if it stands by itself."""
    from tasks.lineage import find_ledger_source

    source, plan = find_ledger_source(settings.edits.path), read_plan(settings, compare)
    configured = provenance_of(_configured(config, settings), plan.provenance)
    return replace(plan, output=output, configured=configured, ledger_source=source)


def _configured(config: str | None, settings: Settings) -> Settings:
    """What the file says by itself, if it stands by itself."""
    try:
        return load_settings(config)
    except InputError:
        return settings
