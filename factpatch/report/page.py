"""A release on one page: a self-contained HTML file that opens from disk and runs no script.

Every text from edits and models is escaped by Jinja2, and the page's policy forbids scripts and the network besides.
"""

from __future__ import annotations

from collections.abc import Sequence

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

import factpatch.report.evidence as facts
from factpatch.report.charts import heat_map, loss_curve, share_axis
from factpatch.report.evidence import Json, ReportedScore

ROW_LIMIT = 100  # the longest list of edits or probes on the page; evaluate.json holds all
EXAMPLE_LIMIT = 6  # edits shown that worked
SHARES = frozenset({"reliability", "generalization", "locality", "portability", "canaries", "text_rise"})
PLAIN = {
    "reliability": "edited questions answered with the new fact",
    "generalization": "other wordings answered with the new fact",
    "locality": "other facts answered exactly as before",
    "locality_content": "other facts answered as before, or with less or more of the same words",
    "portability": "conclusions drawn from the new fact",
}
PLAIN |= {
    f"{kind}_{name}": f"{meaning}, {how}"
    for name, meaning in PLAIN.items()
    for kind, how in (
        ("judged", "by exact match or in a judge's eyes"),
        ("chat", "asked through the chat template"),
        ("plain", "asked without the chat template"),
    )
}


def render_report(evidence: Json) -> str:
    """The page of a release as text.

    Args:
        evidence: values by the names of `evidence.EVIDENCE_FILES`, as `read_evidence` gives them; all may be absent,
            and of those present every optional part.
    """
    release, evaluate, edit, localize = (
        evidence.get(name) or {} for name in ("release", "evaluate", "edit", "localize")
    )
    title, tone = facts.heading(release)
    rows = evaluate.get("edits") or []
    location = release.get("location") or localize.get("location") or {}
    candidates = localize.get("candidates") or []
    capability = facts.capability_scores(release, evidence.get("regress"))
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            tone=tone,
            release=release,
            decision=facts.decision(release),
            gates=sorted(release.get("gates") or [], key=lambda gate: facts.VERDICTS.index(facts.verdict(gate))),
            scores=facts.scorecard(release, evaluate),
            shares=share_axis([0.0]),
            breakdowns=facts.breakdowns(evaluate),
            plain=PLAIN,
            headline=("reliability", "generalization", headline_locality(evaluate)),
            protocol=evaluate.get("protocol"),
            judge=evaluate.get("judge"),
            capability=capability,
            capability_axis=share_axis(value for score in capability for value in extent(score)),
            least=least_allowed(release, capability),
            worst=max((score for score in capability if score.fall is not None), key=_fall, default=None),
            location=location,
            localize=localize,
            candidates=sorted(candidates, key=lambda candidate: -candidate["score"]),
            heat=heat_map(candidates, location, localize.get("ranking") or []),
            certificate=evidence.get("certificate"),
            training=edit,
            curve=loss_curve(edit.get("losses") or []),
            worked=[row for row in rows if row["reliable"]][:EXAMPLE_LIMIT],
            failed=[row for row in rows if not row["reliable"]],
            edits=rows,
            missed=facts.missed_paraphrases(rows),
            paraphrases=sum(len(row["paraphrases"]) for row in rows),
            moved=facts.moved_neighbours(evaluate),
            neighbours=len({item["prompt"] for row in rows for item in row["locality"]}),
            limit=ROW_LIMIT,
            provenance=provenance(evidence),
            timings=release.get("timings") or {},
            settings=settings_text(evidence.get("manifest")),
            commands=facts.commands(release),
        )
    )


def headline_locality(evaluate: Json) -> str:
    """The metric that the locality gate reads."""
    by_content = evaluate.get("protocol") != "paper" and "locality_content" in evaluate
    return "locality_content" if by_content else "locality"


def provenance(evidence: Json) -> list[tuple[str, list[tuple[str, str]]]]:
    """What the release was made of, as titled tables; empty ones are left out."""
    release = evidence.get("release") or {}
    registered = {name: release.get(name) for name in ("model", "version", "aliases", "run", "tracking_uri")}
    tables = (
        ("Base model", release.get("base") or {}),
        ("Data", facts.data_revision(evidence.get("lineage"))),
        ("Digests", release.get("digests") or {}),
        ("Certificate", evidence.get("certificate") or {}),
        ("Registry", registered if release.get("version") else {}),
        ("Library versions", release.get("versions") or {}),
    )
    return [(title, list(facts.flatten(value))) for title, value in tables if value]


def settings_text(manifest: Json | None) -> str:
    """The settings of the run as the text of a `params.yaml`; empty where there is no manifest."""
    config = (manifest or {}).get("config")
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True) if config else ""


def gate_number(value: float | None, gate: Json) -> str:
    """A gate's value or limit in the unit of what it judges: points for falls, shares in percent, else as it is."""
    if value is None:
        return "–"
    if str(gate["name"]).startswith("capability"):
        return f"{100 * value:.1f} points"
    is_share = str(gate["name"]).partition(".")[0] in SHARES
    return facts.percent(value) if is_share else f"{value:.4g}"


def least_allowed(release: Json, scores: Sequence[ReportedScore]) -> dict[str, float]:
    """By task, the score at which its gate would still pass: the one before, less the fall allowed."""
    limits = {str(gate["name"]).removeprefix("capability."): gate["limit"] for gate in release.get("gates") or []}
    return {
        score.name: score.before + (limits[score.name] if score.direction == "lower" else -limits[score.name])
        for score in scores
        if score.before is not None and limits.get(score.name) is not None
    }


def _fall(score: ReportedScore) -> float:
    return score.fall or 0.0


def extent(score: ReportedScore) -> Sequence[float | None]:
    return (score.before, score.after, *(score.ci95_before or ()), *(score.ci95_after or ()))


def environment() -> Environment:
    """Templates in which everything is escaped, and a name that is not given is an error."""
    environment = Environment(
        loader=PackageLoader("factpatch.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": facts.percent,
        "interval": facts.interval_text,
        "duration": facts.duration,
        "words": facts.readable_name,
        "verdict": facts.verdict,
        "gate_number": gate_number,
    }
    return environment
