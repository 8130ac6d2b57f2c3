"""What a release's folder says, read as it is, and its numbers as rows for a page or a card."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from factpatch.addresses import shell_path
from factpatch.errors import InputError
from factpatch.files import read_json

EVIDENCE_FILES = {
    "release": "release.json",
    "validate": "validate.json",
    "localize": "localize.json",
    "edit": "edit.json",
    "evaluate": "evaluate.json",
    "regress": "regress.json",
    "lineage": "lineage.json",
    "manifest": "patch/manifest.json",
    "certificate": "patch/certificate.json",
}
VERDICTS = ("failed", "undecided", "passed", "skipped")  # the order in which a reader needs them

Json = Mapping[str, Any]


@dataclass(frozen=True)
class ReportedScore:
    """One measured number before and after; shares in [0, 1] unless `unit` says otherwise, intervals [low, high]."""

    name: str
    before: float | None
    after: float | None
    n: int | None
    ci95_before: Sequence[float] | None
    ci95_after: Sequence[float] | None
    note: str  # what the number means, or why there is none
    direction: str = "higher"
    broken: int | None = None  # items that were right before and are wrong now
    repaired: int | None = None
    unmeasured: int = 0  # items beside the n that tell nothing
    unit: str = "share"
    made: int = 0  # items that the run made, as rows bring none

    @property
    def items(self) -> str:
        """How many items the number rests on, how many tell nothing, and how many the run made."""
        apart = f", {self.unmeasured} unmeasured" if self.unmeasured else ""
        apart += f", {self.made} made by the run" if self.made else ""
        return "–" if self.n is None else f"{self.n}{apart}"

    @property
    def fall(self) -> float | None:
        """How much worse it got; negative where it got better, None where one side is unknown."""
        if self.before is None or self.after is None:
            return None
        return self.after - self.before if self.direction == "lower" else self.before - self.after


def read_evidence(folder: str | Path) -> dict[str, Any]:
    """Every file of `EVIDENCE_FILES` that the folder holds, by name."""
    return {name: read_json(path) for name, file in EVIDENCE_FILES.items() if (path := Path(folder) / file).is_file()}


def read_release(folder: str | Path) -> dict[str, Any]:
    """The evidence of a finished release. Raises InputError where the folder holds none."""
    evidence = read_evidence(folder)
    for name in ("release", "evaluate"):
        if name not in evidence:
            raise InputError(
                f"'{folder}' holds no {EVIDENCE_FILES[name]}; name the output folder of a whole `factpatch run`"
            )
    return evidence


# Scores


def scorecard(release: Json, evaluate: Json) -> list[ReportedScore]:
    """Every metric of `evaluate.json`; of `release.json` where the former has none."""
    definitions = evaluate.get("definitions") or {}
    before = evaluate.get("before") or {}
    if not definitions:
        return [
            _score(name, entry, {"value": entry.get("before")})
            for name, entry in dict(release.get("metrics") or {}).items()
        ]
    return [
        _score(name, evaluate[name], before.get(name) or {}, definition)
        for name, definition in definitions.items()
        if name in evaluate
    ]


def capability_scores(release: Json, regress: Json | None) -> list[ReportedScore]:
    """Every capability task, from `regress.json` or else `release.json`."""
    tasks = (regress or {}).get("tasks") or release.get("capability") or {}
    return [
        _score(
            name,
            entry,
            {"value": entry.get("before"), "ci95": entry.get("ci95_before")},
            {"meaning": entry.get("metric") or ""},
        )
        for name, entry in tasks.items()
    ]


def _score(name: str, entry: Json, before: Json, definition: Json | None = None) -> ReportedScore:
    definition = definition or {}
    return ReportedScore(
        name=name,
        before=before.get("value"),
        after=entry.get("value", entry.get("after")),
        n=entry.get("n"),
        ci95_before=before.get("ci95"),
        ci95_after=entry.get("ci95_after") or entry.get("ci95"),
        note=entry.get("reason") or definition.get("meaning") or "",
        direction=entry.get("direction") or definition.get("direction") or "higher",
        broken=entry.get("broken"),
        repaired=entry.get("repaired"),
        unmeasured=entry.get("unmeasured") or 0,
        unit=entry.get("unit") or definition.get("unit") or "share",
        made=entry.get("made") or 0,
    )


def breakdowns(evaluate: Json) -> list[tuple[str, list[tuple[str, list[ReportedScore]]]]]:
    """The scorecard by source and by relation, as far as it is there: (what by, [(group, scores)])."""
    definitions = evaluate.get("definitions") or {}
    found = []
    for title in ("source", "relation"):
        groups = evaluate.get(f"by_{title}") or {}
        rows = [(name, scorecard({}, {"definitions": definitions, **group})) for name, group in groups.items()]
        found.append((title, [(name, [score for score in scores if score.after is not None]) for name, scores in rows]))
    return [(title, groups) for title, groups in found if groups]


# Gates and the decision


def verdict(gate: Json) -> str:
    """A gate's verdict as a word of `VERDICTS`."""
    return gate.get("verdict") or {True: "passed", False: "failed"}.get(gate["passed"], "skipped")


def count_verdicts(release: Json) -> dict[str, int]:
    """How many gates have each verdict, in the order of `VERDICTS`, without those that none has."""
    found = [verdict(gate) for gate in release.get("gates") or []]
    return {word: found.count(word) for word in VERDICTS if word in found}


def heading(release: Json) -> tuple[str, str]:
    """The decision in a word or two, and its tone: good, fair or bad."""
    status = release.get("status")
    if status == "refused" and "failed" not in count_verdicts(release) and "undecided" in count_verdicts(release):
        return "Refused: too little evidence", "bad"
    known = {
        "promoted": ("Promoted", "good"),
        "registered": ("Registered, not promoted", "fair"),
        "refused": ("Refused", "bad"),
    }
    return known.get(status or "", (str(status or "No decision yet"), "fair"))


def decision(release: Json) -> str:
    """The decision and its ground as plain sentences."""
    model = release.get("model") or "the model"
    version = f"Version {release['version']} of {model}" if release.get("version") else f"This candidate of {model}"
    counts = count_verdicts(release)
    total = sum(counts.values())
    stopped = [f"{counts[word]} {word}" for word in ("failed", "undecided") if word in counts]
    ground = f" Of {plural(total, 'gate')} {' and '.join(stopped)}." if stopped else ""
    if counts and not stopped:
        ground = f" {counts.get('passed', 0)} of {plural(total, 'gate')} passed, none failed."
    outcome = {
        "promoted": "was promoted: who asks the registry for the champion gets it.",
        "registered": "was registered and waits for promotion; nobody uses it yet.",
        "refused": "was not released; whatever is in use stays in use.",
    }.get(release.get("status") or "", "has no decision yet.")
    return f"{version} {outcome}{ground}{_carried(release.get('edits') or {})}"


def _carried(edits: Json) -> str:
    if edits.get("accepted") is None:
        return ""
    aside = f"; {edits['quarantined']} more were set aside as faulty" if edits.get("quarantined") else ""
    return f" It carries {plural(edits['accepted'], 'edit')}{aside}."


def plural(count: int, noun: str) -> str:
    """`1 edit`, `2 edits`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


# Edits


def moved_neighbours(evaluate: Json) -> list[dict[str, Any]]:
    """Locality probes whose answer changed in content (under the paper's protocol, at all), each prompt once, with the
    edit they belong to."""
    kept = "unchanged" if evaluate.get("protocol") == "paper" else "content"
    moved = {
        item["prompt"]: {**item, "edit": row["prompt"]}
        for row in evaluate.get("edits") or []
        for item in row["locality"]
        if item.get(kept, item["unchanged"]) is False  # older files know no content
    }
    return list(moved.values())


def missed_paraphrases(rows: Iterable[Json]) -> list[dict[str, Any]]:
    """Paraphrases not answered with their edit's target."""
    return [{**item, "target": row["target"]} for row in rows for item in row["paraphrases"] if not item["correct"]]


# Provenance


def flatten(value: Json, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as rows of dotted name and text."""
    for name, entry in value.items():
        if isinstance(entry, Mapping):
            yield from flatten(entry, f"{prefix}{name}.")
        elif isinstance(entry, (list, tuple)):
            yield f"{prefix}{name}", ", ".join(map(str, entry)) or "none"
        else:
            yield f"{prefix}{name}", "–" if entry is None else str(entry)


def data_revision(lineage: Json | None) -> dict[str, str]:
    """Where the edits came from, as rows; empty where lineage was not recorded."""
    edits = (lineage or {}).get("edits") or {}
    if not edits:
        return {}
    state = ", with uncommitted changes" if edits.get("dirty") else ""
    revision = f"{edits['revision']}{state}" if edits.get("revision") else "not under version control"
    return {"edits read from": str(edits.get("path")), "git revision": revision}


def commands(release: Json) -> dict[str, str]:
    """How to repeat, use and take back a release, from the folder that holds its patch."""
    base = shell_path((release.get("base") or {}).get("source") or "BASE_MODEL")
    shown = {
        "Reproduce it, with the settings above as params.yaml": "factpatch run --config params.yaml --output again",
        "Measure again": f"factpatch evaluate --model {base} --patch patch --edits accepted.jsonl --output again",
        "Ask the edited model": f'factpatch ask --model {base} --patch patch "…"',
        "Apply the patch": f"factpatch apply --model {base} --patch patch --output edited",
        "Undo it": "factpatch undo --model edited --patch patch --output restored",
    }
    if release.get("status") == "registered" and release.get("version"):
        shown["Promote it"] = f"factpatch promote {quote(str(release['version']))}"
    if release.get("status") == "promoted":
        shown["Go back to the previous version"] = "factpatch rollback"
    return shown


# Small formats


def percent(value: float | None, unit: str = "share") -> str:
    """A share as readers expect it, or a number in its unit; a dash for what was not measured."""
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if unit == "share" else f"{value:.3g} {unit}"


def interval_text(bounds: Sequence[float] | None, unit: str = "share") -> str:
    """A 95 % interval like `percent`; a dash where there is none."""
    if not bounds:
        return "–"
    low, high = bounds
    return f"{100 * low:.1f} – {100 * high:.1f} %" if unit == "share" else f"{low:.3g} – {high:.3g} {unit}"


def duration(seconds: float) -> str:
    """Seconds below two minutes, else minutes."""
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def readable_name(name: str) -> str:
    """A public name such as `capability.world_sums`, for reading."""
    return name.replace(".", ": ").replace("_", " ")
