"""The rules that allow or refuse a release: pure functions of measured numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from factpatch.config import GateSettings

ROUNDING = 1e-9  # 0.96 - 0.94 is a hair more than 0.02 in binary; that hair refuses nothing


@dataclass(frozen=True)
class Gate:
    """One rule and its verdict.

    Attributes:
        name: `reliability`, `generalization`, `locality`, or `capability.<task>`.
        passed: null where there was nothing to judge; such a gate was skipped and refuses nothing.
        value: what was measured: a metric, or how far a task's score got worse; null if not measured.
        limit: the least (metrics) or the most (falls) that passes.
        reason: the verdict as a sentence.
    """

    name: str
    passed: bool | None
    value: float | None
    limit: float
    reason: str


def judge(
    metrics: Mapping[str, Mapping[str, Any]],
    capability: Mapping[str, Mapping[str, Any]] | None,
    settings: GateSettings,
) -> list[Gate]:
    """Every gate in a fixed order.

    Args:
        metrics: `{"reliability": {"value", "n", ...}, ...}` as in `evaluate.json`, after the edit.
        capability: `{task: {"before", "after", "n", "direction"}}`; None or empty if no task was scored. Without a
            direction higher is better.
        settings: floors and the largest fall.
    """
    gates = [
        _floor("reliability", metrics, settings.reliability, required=True),
        _floor("generalization", metrics, settings.generalization),
        _floor("locality", metrics, settings.locality),
    ]
    if not capability:
        reason = "No capability task was scored, so this gate was skipped."
        return [*gates, Gate("capability", None, None, settings.capability_drop, reason)]
    return gates + [_fall(task, capability[task], settings.capability_drop) for task in sorted(capability)]


def allows(gates: Sequence[Gate]) -> bool:
    """May the release be promoted? Yes, if no gate failed."""
    return all(gate.passed is not False for gate in gates)


def _floor(name: str, metrics: Mapping[str, Mapping[str, Any]], limit: float, required: bool = False) -> Gate:
    metric = metrics.get(name) or {}
    value = metric.get("value")
    if value is None:
        why = metric.get("reason", "there is no such number")
        if required:
            return Gate(name, False, None, limit, f"{name.capitalize()} was not measured ({why}); it must be.")
        return Gate(name, None, None, limit, f"{name.capitalize()} was not measured ({why}), so this gate was skipped.")
    passed = value >= limit - ROUNDING
    verdict = "reaches" if passed else "is below"
    reason = f"{name.capitalize()} of {value:.1%} over {metric['n']} items {verdict} the floor of {limit:.1%}."
    return Gate(name, passed, value, limit, reason)


def _fall(task: str, scores: Mapping[str, Any], limit: float) -> Gate:
    name, before, after = f"capability.{task}", scores.get("before"), scores.get("after")
    if before is None or after is None:
        reason = f"{task} was not scored both before and after the edit, so its fall is unknown."
        return Gate(name, False, None, limit, reason)
    fall = after - before if scores.get("direction") == "lower" else before - after
    passed = fall <= limit + ROUNDING
    change = f"got worse by {100 * fall:.1f} points" if fall > 0 else "did not get worse"
    verdict = "within" if passed else "more than"
    reason = f"{task} {change} (from {before:.1%} to {after:.1%}), {verdict} the {100 * limit:.1f} points allowed."
    return Gate(name, passed, fall, limit, reason)
