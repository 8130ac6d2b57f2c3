"""A release on one page: a self-contained HTML file that opens from disk and runs no script.

Every text from edits and models is escaped by Jinja2, and the page's policy forbids scripts and the network besides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

ROWS = 100  # the longest list of edits or probes on the page; evaluate.json holds all
EXAMPLES = 6  # edits shown that worked

DECISIONS = {
    "promoted": ("Promoted", "good"),
    "registered": ("Registered, not promoted", "fair"),
    "refused": ("Refused", "bad"),
}


@dataclass(frozen=True)
class Score:
    """A row of the scorecard or of the capability chart; shares in [0, 1], intervals [low, high]."""

    name: str
    before: float | None
    after: float | None
    n: int | None
    ci95: Sequence[float] | None
    note: str  # what the number means, or why there is none


@dataclass(frozen=True)
class Chart:
    """A drawing in a box of `width` x `height`: marks with their labels, and grid lines as (y, label)."""

    width: float
    height: float
    marks: tuple[tuple[float, float, str], ...]
    grid: tuple[tuple[float, str], ...]


def render_report(
    release: Mapping[str, Any],
    evaluate: Mapping[str, Any],
    regress: Mapping[str, Any] | None = None,
    localize: Mapping[str, Any] | None = None,
    edit: Mapping[str, Any] | None = None,
) -> str:
    """The page as text, from the values of `release.json`, `evaluate.json` and, as far as they exist, the others.

    `release` may also hold `versions` and `commands` ({what it does: command}), shown under provenance.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "duration": duration, "words": words}
    heading, tone = DECISIONS.get(release.get("status", ""), (str(release.get("status")), "fair"))
    rows = evaluate.get("edits") or []
    return environment.get_template("report.html.j2").render(
        heading=heading,
        tone=tone,
        summary=summary(release),
        gates=release.get("gates") or [],
        scores=scorecard(release, evaluate),
        capability=capability_scores(release, regress),
        location=release.get("location") or (localize or {}).get("location") or {},
        reason=(localize or {}).get("reason"),
        candidates=(localize or {}).get("candidates") or [],
        layers=layer_chart((localize or {}).get("candidates") or []),
        training=edit or {},
        losses=loss_chart((edit or {}).get("losses") or []),
        worked=[row for row in rows if row["reliable"]][:EXAMPLES],
        failed=[row for row in rows if not row["reliable"]],
        missed=[
            {**item, "target": row["target"]} for row in rows for item in row["paraphrases"] if not item["correct"]
        ],
        moved=moved_neighbours(rows),
        limit=ROWS,
        provenance=[
            (title, list(flatten(release.get(key) or {})))
            for title, key in (("Digests", "digests"), ("Versions", "versions"))
        ],
        timings=release.get("timings") or {},
        commands=release.get("commands") or default_commands(release),
        protocol=evaluate.get("protocol", "default"),
    )


def summary(release: Mapping[str, Any]) -> str:
    """The decision and its ground in a sentence or two."""
    failed = [gate for gate in release.get("gates") or [] if gate["passed"] is False]
    edits, name = release.get("edits") or {}, release.get("model") or "the model"
    version = f"Version {release['version']} of {name}" if release.get("version") else f"This candidate of {name}"
    count = f" It carries {edits['accepted']} edits." if edits.get("accepted") is not None else ""
    if edits.get("quarantined"):
        count = count[:-1] + f"; {edits['quarantined']} more were quarantined."
    verdict = {
        "promoted": "was promoted: no gate failed.",
        "registered": "was registered and waits for promotion.",
        "refused": "was not released.",
    }.get(release.get("status", ""), "has no decision yet.")
    why = f" {len(failed)} of {len(release['gates'])} gates failed." if failed else ""
    return f"{version} {verdict}{why}{count}"


def scorecard(release: Mapping[str, Any], evaluate: Mapping[str, Any]) -> list[Score]:
    """Every metric of `evaluate.json`; of `release.json` where the former has none."""
    definitions = evaluate.get("definitions") or {}
    before = evaluate.get("before") or {}
    measured = {name: evaluate[name] for name in definitions if name in evaluate}
    if not measured:
        return [_score(name, entry, entry.get("before"), "") for name, entry in (release.get("metrics") or {}).items()]
    return [
        _score(name, entry, (before.get(name) or {}).get("value"), definitions[name]["meaning"])
        for name, entry in measured.items()
    ]


def capability_scores(release: Mapping[str, Any], regress: Mapping[str, Any] | None) -> list[Score]:
    """Every capability task, before and after, from `regress.json` or else `release.json`."""
    tasks = (regress or {}).get("tasks") or release.get("capability") or {}
    return [_score(name, entry, entry.get("before"), entry.get("metric") or "") for name, entry in tasks.items()]


def _score(name: str, entry: Mapping[str, Any], before: float | None, note: str) -> Score:
    after = entry.get("value", entry.get("after"))
    return Score(
        name, before, after, entry.get("n"), entry.get("ci95") or entry.get("ci95_after"), entry.get("reason") or note
    )


def moved_neighbours(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Locality probes whose answer changed, each prompt once."""
    moved = {item["prompt"]: item for row in rows for item in row["locality"] if item["unchanged"] is False}
    return list(moved.values())


def layer_chart(candidates: Sequence[Mapping[str, Any]]) -> Chart | None:
    """A column a candidate, in order of layer: marks are (x, y of the top, name)."""
    if not candidates:
        return None
    height, step = 120.0, 26.0
    top = max(max(candidate["score"] for candidate in candidates), 1e-9)
    ordered = sorted(candidates, key=lambda candidate: (candidate["layer"], candidate["module"]))
    marks = tuple(
        (40 + step * index, round(height * (1 - max(candidate["score"], 0) / top), 2), candidate["location"])
        for index, candidate in enumerate(ordered)
    )
    return Chart(50 + step * len(marks), height, marks, ((0.0, f"{top:.2f}"), (height, "0")))


def loss_chart(losses: Sequence[float]) -> Chart | None:
    """The mean loss of every epoch on a logarithmic scale; None where there is none to draw."""
    logs = [math.log10(loss) for loss in losses if loss > 0 and math.isfinite(loss)]
    if not logs:
        return None
    low, high = math.floor(min(logs)), max(math.ceil(max(logs)), math.floor(min(logs)) + 1)
    width, height, left = 600.0, 160.0, 48.0
    step = (width - left - 8) / max(len(logs) - 1, 1)
    marks = tuple(
        (round(left + step * index, 2), round(height * (high - log) / (high - low), 2), f"epoch {index + 1}")
        for index, log in enumerate(logs)
    )
    grid = tuple((height * (high - power) / (high - low), f"{10.0**power:g}") for power in range(low, high + 1))
    return Chart(width, height, marks, grid)


def default_commands(release: Mapping[str, Any]) -> dict[str, str]:
    """How to use, take back and repeat a release, from the folder that holds its patch."""
    base = (release.get("base") or {}).get("source", "BASE_MODEL")
    return {
        "Ask the edited model": f'factpatch ask --model {base} --patch patch "..."',
        "Apply the patch": f"factpatch apply --model {base} --patch patch --output edited",
        "Undo it": "factpatch undo --model edited --patch patch --output restored",
        "Measure again": f"factpatch evaluate --model {base} --patch patch --edits accepted.jsonl --output again",
        "Go back to the previous version": "factpatch rollback",
    }


def flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as rows of dotted name and text."""
    for name, entry in value.items():
        if isinstance(entry, Mapping):
            yield from flatten(entry, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", "–" if entry is None else str(entry)


def percent(value: float | None) -> str:
    """A share as readers expect it; a dash for what was not measured."""
    return "–" if value is None else f"{100 * value:.1f} %"


def duration(seconds: float) -> str:
    """Seconds below two minutes, else minutes."""
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def words(name: str) -> str:
    """A public name such as `capability.world_sums`, for reading."""
    return name.replace(".", ": ").replace("_", " ")
