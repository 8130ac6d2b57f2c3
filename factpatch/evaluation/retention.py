"""Do released facts still hold in a model? Its answers of today against those that were measured at the release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from factpatch.edits.live import LiveFact
from factpatch.edits.request import EditRequest
from factpatch.evaluation.answers import matches
from factpatch.evaluation.canaries import score_canaries
from factpatch.evaluation.gates import ROUNDING
from factpatch.evaluation.intervals import share
from factpatch.settings.config import Settings

SCHEMA = 1
CANARIES_NAMED = 3  # canaries named in a reason


def retention(
    facts: Sequence[LiveFact], canaries: Sequence[EditRequest], outputs: Mapping[str, str], settings: Settings
) -> dict[str, Any]:
    """What holds and what does not, from texts alone: the value of `monitor.json` without what was asked and when.

    `outputs` maps each prompt to the greedy text after it. A wrong fact is `decayed` if it was right at its release or
    no release is known, else `unlearnt`. `status` is `decayed` if fewer facts are right than the limit asks, `damaged`
    if they hold but a canary does not, else `held`.
    """
    protocol, limit = settings.evaluation.protocol, fact_limit(settings)
    wrong = [fact for fact in facts if not matches(outputs[fact.prompt], fact.target, protocol)]
    missing = {fact.id for fact in wrong}
    reliability = share([fact.id not in missing for fact in facts], "no fact is in force")
    lists: dict[str, list[dict[str, Any]]] = {"decayed": [], "unlearnt": []}
    for fact in wrong:
        held = fact.released is None or matches(fact.released, fact.target, protocol)
        row = {"id": fact.id, "prompt": fact.prompt, "target": fact.target, "released": fact.released}
        lists["decayed" if held else "unlearnt"].append(row | {"output": outputs[fact.prompt]})
    asked = score_canaries(canaries, outputs, protocol) if canaries else None
    failing = [item["prompt"] for item in asked["items"] if not item["correct"]] if asked else []
    lost = reliability["value"] is not None and reliability["value"] < limit - ROUNDING
    return {
        "schema": SCHEMA,
        "status": "decayed" if lost else "damaged" if failing else "held",
        "reasons": _reasons(reliability, limit, lost, failing, len(canaries)),
        "limit": limit,
        "reliability": reliability,
        **lists,
        "canaries": asked,
    }


def fact_limit(settings: Settings) -> float:
    """The least share of facts that must hold: the monitor's own, else the gate's."""
    return settings.gates.reliability if settings.monitor.limit is None else settings.monitor.limit


def _reasons(
    reliability: Mapping[str, Any], limit: float, lost: bool, failing: Sequence[str], canaries: int
) -> list[str]:
    """Each finding as a sentence."""
    if reliability["value"] is None:
        told = ["No fact is in force."]
    else:
        share_told = f"{reliability['value']:.1%} of {reliability['n']} facts hold"
        told = [f"{share_told}, {'below' if lost else 'which reaches'} the limit of {limit:.1%}."]
    if failing:
        named = ", ".join(f"'{prompt}'" for prompt in failing[:CANARIES_NAMED])
        told.append(f"{len(failing)} of {canaries} canaries are answered wrong, such as {named}.")
    return told
