"""The rules that allow or refuse a release: pure functions of measured numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from factpatch.evaluation.intervals import wilson
from factpatch.evaluation.paired import Interval, items_needed, least_items, score_interval
from factpatch.evaluation.scorecard import JUDGEABLE
from factpatch.evaluation.suites import COMPRESSED
from factpatch.settings.config import AUTO, GateSettings

ROUNDING = 1e-9  # 0.96 - 0.94 is a hair more than 0.02 in binary; that hair refuses nothing
FLOORS = ("reliability", "generalization", "locality", "portability")
ITEMS_NAMED = 3  # items named in a reason

Verdict = Literal["passed", "failed", "undecided", "skipped"]
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Gate:
    """One rule and its verdict.

    Attributes:
        name: `reliability`, `generalization`, `locality`, `portability`, `capability.<task>`, `text_rise.<task>`,
            `canaries`, `certificate`, `weight_change` or `reload`; without facts `unedited` and `certificate`.
        passed: the verdict in short: true, false, or null where it is neither.
        verdict: `undecided` where the numbers are too few to tell, or all that was asked is unmeasured, which refuses
            like `failed`; `skipped` where there was nothing to judge, which refuses nothing.
        value: what was measured: a share, how far a task's score fell, a relative change; null if not measured.
        limit: the least (shares) or the most (falls, changes) that passes.
        ci95: 95 % interval of the value; null where it has none.
        reason: the verdict as a sentence.
    """

    name: str
    passed: bool | None
    verdict: Verdict
    value: float | None
    limit: float | None
    ci95: tuple[float, float] | None
    reason: str


def judge_gates(
    metrics: Mapping[str, Json],
    capability: Mapping[str, Json] | None,
    settings: GateSettings,
    unmeasured: Mapping[str, str] | None = None,
) -> list[Gate]:
    """The gates over what was measured, in a fixed order.

    Args:
        metrics: the value of `evaluate.json`: `{"reliability": {"value", "n", "ci95", ...}, ..., "canaries": ...}`.
        capability: a row a task as in `regress.json`; None or empty if no task was scored.
        settings: floors, margins, and whether there must be canaries.
        unmeasured: why, for each task that could not be scored.
    """
    gates = [
        _floor(name, metrics, limit, name in settings.required, settings.judged and name in JUDGEABLE)
        for name in FLOORS
        if (limit := getattr(settings, name)) is not None
    ]
    rows: dict[str, Json | str] = {**(capability or {}), **(unmeasured or {})}
    gates += [_capability(task, rows[task], settings) for task in sorted(rows)]
    if not rows:
        reason = "No capability task was scored, so this gate was skipped."
        gates.append(_gate("capability", "skipped", None, settings.capability_drop, None, reason))
    if settings.canaries:
        gates.append(_canaries(metrics.get("canaries") or {}, settings.canaries == AUTO))
    return gates


def judge_format(metrics: Mapping[str, Json], settings: GateSettings) -> list[Gate]:
    """The floors over what was measured in a form in which the model will be served; they decide about that form."""
    return [
        _floor(name, metrics, getattr(settings, name), name in settings.required, judged=False)
        for name in ("reliability", "generalization", "locality")
    ]


def allows(gates: Sequence[Gate]) -> bool:
    """May the release be promoted? Yes, if no gate failed and none is undecided."""
    return all(gate.verdict in ("passed", "skipped") for gate in gates)


def judge_certificate(problems: Sequence[str]) -> Gate:
    """Only the located tensors differ from the base, and the patch is the one that was measured, if nothing speaks
    against it."""
    if problems:
        more = f" And {len(problems) - ITEMS_NAMED} more." if len(problems) > ITEMS_NAMED else ""
        reason = " ".join(_sentence(problem) for problem in problems[:ITEMS_NAMED]) + more
        return _gate("certificate", "failed", None, None, None, reason)
    reason = "Only the located tensors differ from the base model, and the patch is the one that was measured."
    return _gate("certificate", "passed", None, None, None, reason)


def judge_base_model(parameters: Sequence[str]) -> Gate:
    """Where no fact is in force nothing was written; `parameters` are the tensors that the patch holds."""
    if parameters:
        reason = f"No fact is in force, but the patch changes {', '.join(parameters[:ITEMS_NAMED])}."
        return _gate("unedited", "failed", None, None, None, reason)
    return _gate("unedited", "passed", None, None, None, "No fact is in force: this is the base model, unchanged.")


def judge_weight_change(norms: Mapping[str, float], limit: float) -> Gate:
    """No located tensor changed by more than `limit` of its own norm."""
    name, value = max(norms.items(), key=lambda item: item[1])
    passed = value <= limit + ROUNDING
    reason = (
        f"The tensor that changed most, {name}, changed by {value:.1%} of its norm, "
        f"{'within' if passed else 'more than'} the {limit:.1%} allowed."
    )
    return _gate("weight_change", "passed" if passed else "failed", value, limit, None, reason)


def judge_reload(asked: int, moved: Sequence[str]) -> Gate:
    """The model as the registry gives it back answers as measured; `moved` are the prompts where it does not."""
    share = (asked - len(moved)) / asked
    if not moved:
        reason = f"The model that the registry gives back answers all {asked} prompts asked again as measured."
        return _gate("reload", "passed", share, 1.0, wilson(asked, asked), reason)
    reason = (
        f"The model that the registry gives back answers {len(moved)} of {asked} prompts asked again otherwise than "
        f"measured, such as {_quoted(moved)}."
    )
    return _gate("reload", "failed", share, 1.0, wilson(asked - len(moved), asked), reason)


def _floor(name: str, metrics: Mapping[str, Json], limit: float, required: bool, judged: bool) -> Gate:
    by_content = name == "locality" and metrics.get("protocol") != "paper"  # whose number means exact sameness
    metric = metrics.get(f"judged_{name}" if judged else "locality_content" if by_content else name) or {}
    how = ", judged by a model," if judged else " of content" if by_content else ""
    title, value = f"{name.capitalize()}{how}", metric.get("value")
    if value is None:
        why = metric.get("reason", "there is no such number")
        if metric.get("unmeasured"):
            reason = f"{title} cannot be judged: {why}; use probes that it answers."
            return _gate(name, "undecided", None, limit, None, reason)
        if required or (judged and not metric):  # no judge was asked, though the settings want it to decide
            reason = f"{title} was not measured ({why}); it must be."
            return _gate(name, "failed", None, limit, None, reason)
        reason = f"{title} was not measured ({why}), so this gate was skipped."
        return _gate(name, "skipped", None, limit, None, reason)
    passed = value >= limit - ROUNDING
    apart = f" ({metric['unmeasured']} more are unmeasured)" if metric.get("unmeasured") else ""
    made = f", {min(metric['made'], metric['n'])} of them made by the run," if metric.get("made") else ""
    moved = [] if passed or name != "locality" else _moved(metrics)
    told = "reaches" if passed else "is below"
    reason = f"{title} of {value:.1%} over {metric['n']} items{apart}{made} {told} the floor of {limit:.1%}."
    if moved:
        reason += f" {len(moved)} moved, such as {_quoted(moved)}."
    return _gate(name, "passed" if passed else "failed", value, limit, metric.get("ci95"), reason)


def _moved(metrics: Mapping[str, Any]) -> list[str]:
    """The locality probes that are answered otherwise than before."""
    probes = (probe for row in metrics.get("edits", ()) for probe in row["locality"])
    return list(dict.fromkeys(probe["prompt"] for probe in probes if probe["unchanged"] is False))


def _capability(task: str, row: Json | str, settings: GateSettings) -> Gate:
    """A task's gate; skipped where nothing surely fell, but the base model knew too little for that to say much."""
    margin = settings.capability_drop
    if isinstance(row, str):
        return _unmeasured(task, row, margin)
    if row.get("metric") == COMPRESSED:
        return _text_rise(task, row, settings.text_rise)
    gate = _non_inferior(task, row, margin)
    if gate.verdict == "failed":
        return gate
    n, asked, chance = row.get("n") or 0, row.get("asked"), row.get("chance")
    if row.get("known") and n < least_items(margin):
        why = f"the base model is right on {n} of {asked} items, and fewer than {least_items(margin)} cannot tell"
        return _unmeasured(task, why, margin)
    if chance is not None and n and wilson(row["before"] * n, n)[0] <= chance:
        return _unmeasured(task, f"the base model, at {row['before']:.1%}, is not surely better than chance", margin)
    return gate


def _unmeasured(task: str, why: str, margin: float) -> Gate:
    reason = f"{task} was not measured: {why}. This gate was skipped."
    return _gate(f"capability.{task}", "skipped", None, margin, None, reason)


def _text_rise(task: str, row: Json, margin: float) -> Gate:
    """The rule of the fall, for text: how much more room it takes, as a share of what it took before."""
    name, n, rise, interval = f"text_rise.{task}", row["n"], row["fall"], row["ci95_fall"]
    if interval is None:
        reason = f"{task} has too few paragraphs ({n}), or some that a model finds impossible, so nothing can be told."
        return _gate(name, "undecided", None, margin, None, reason)
    moved = f"{abs(rise):.1%} {'more' if rise >= 0 else 'fewer'} bits a byte than before"
    measured = f"{task} takes {moved} ({n} in pairs; 95 % interval of the rise {interval[0]:.1%} to {interval[1]:.1%})"
    return _decided(name, measured, rise, interval, margin, f"the {margin:.1%} allowed", n)


def _non_inferior(task: str, row: Json, margin: float) -> Gate:
    """Passed if the whole interval of the paired fall lies within the margin, failed if none of it does."""
    name, n, turned = f"capability.{task}", row.get("n") or 0, _turned(row)
    interval = score_interval(*turned, n) if turned and n else row.get("ci95_fall")
    if interval is None:
        reason = f"{task} has no scores of single items before and after the edit, so its fall cannot be judged."
        return _gate(name, "undecided", None, margin, None, reason)
    fall = (turned[0] - turned[1]) / n if turned else row["fall"]
    low, high = interval
    moved = f"fell by {100 * fall:.1f} points" if fall > 0 else f"rose by {-100 * fall:.1f}" if fall < 0 else "stayed"
    pairs = f"{turned[0]} items broke and {turned[1]} were repaired of {n}" if turned else f"{n} items in pairs"
    measured = f"{task} {moved} ({pairs}; 95 % interval of the fall {100 * low:.1f} to {100 * high:.1f})"
    return _decided(name, measured, fall, interval, margin, f"the {100 * margin:g} points allowed", n, turned)


def _decided(
    name: str,
    measured: str,
    fall: float,
    interval: Interval,
    margin: float,
    allowed: str,
    n: int,
    turned: tuple[int, int] | None = None,
) -> Gate:
    """The rule itself: where the interval of the fall lies to the margin."""
    low, high = interval
    if high <= margin + ROUNDING:
        return _gate(name, "passed", fall, margin, interval, f"{measured}, surely within {allowed}.")
    if low > margin + ROUNDING:
        return _gate(name, "failed", fall, margin, interval, f"{measured}, surely more than {allowed}.")
    more = items_needed(fall, interval, margin, n, turned)
    hope = f"about {_about(more)} more items" if more is not None else "more items than any task has"
    reason = f"{measured}, perhaps more than {allowed}: needs {hope} to tell."
    return _gate(name, "undecided", fall, margin, interval, reason)


def _turned(row: Json) -> tuple[int, int] | None:
    return None if row.get("broken") is None else (row["broken"], row["repaired"])


def _canaries(canaries: Json, chosen: bool) -> Gate:
    value, n = canaries.get("value"), canaries.get("n")
    if value is None and chosen and canaries:
        reason = f"There are no canaries: {canaries['reason']}. Name a file of your own; this gate was skipped."
        return _gate("canaries", "skipped", None, 1.0, None, reason)
    if value is None:
        reason = "The canaries that the settings name were not asked; evaluate again."
        return _gate("canaries", "failed", None, 1.0, None, reason)
    wrong = [row["prompt"] for row in canaries["items"] if not row["correct"]]
    if not wrong:
        return _gate("canaries", "passed", value, 1.0, canaries["ci95"], f"All {n} canaries are answered right.")
    reason = f"{len(wrong)} of {n} canaries are answered wrong, such as {_quoted(wrong)}."
    return _gate("canaries", "failed", value, 1.0, canaries["ci95"], reason)


def _gate(
    name: str,
    verdict: Verdict,
    value: float | None,
    limit: float | None,
    interval: Sequence[float] | None,
    reason: str,
) -> Gate:
    passed = {"passed": True, "failed": False}.get(verdict)
    return Gate(name, passed, verdict, value, limit, (interval[0], interval[1]) if interval else None, reason)


def _quoted(prompts: Sequence[str]) -> str:
    return ", ".join(f"'{prompt}'" for prompt in prompts[:ITEMS_NAMED])


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _about(count: int) -> int:
    """A count in two significant digits, rounded up."""
    step = 10 ** max(len(str(count)) - 2, 0)
    return -(-count // step) * step
