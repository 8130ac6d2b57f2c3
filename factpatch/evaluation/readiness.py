"""Can the gates be judged at all? Asked before anything is edited, so that hours of work do not end in a shrug."""

from __future__ import annotations

from collections.abc import Sequence

from factpatch.edits.request import EditRequest
from factpatch.errors import InputError
from factpatch.evaluation.answers import same
from factpatch.settings.config import GateSettings

MEASURED_ON = {  # what each metric is measured on
    "reliability": ("prompt", lambda edit: edit.prompt),
    "generalization": ("paraphrase", lambda edit: edit.paraphrases),
    "locality": ("locality probe", lambda edit: edit.locality),
    "portability": ("portability probe", lambda edit: edit.portability),
}


def check_readiness(edits: Sequence[EditRequest], canaries: Sequence[EditRequest], gates: GateSettings) -> None:
    """InputError if a gate would have nothing to judge, or if an edit and a canary want different answers."""
    required = {*gates.required, *(["portability"] if gates.portability is not None else [])}
    for metric, (probe, probes_of) in MEASURED_ON.items():
        limit = getattr(gates, metric)
        if metric in required and not any(map(probes_of, edits)):
            off = "null" if metric == "portability" else f"a list without {metric}"
            key = "gates.portability" if metric == "portability" else "gates.required"
            raise InputError(
                f"gates.{metric} is {limit}, but none of the {len(edits)} accepted edits has a {probe}; add some, or "
                f"set {key} to {off}"
            )
    wanted = {canary.prompt: canary for canary in canaries}
    for edit in edits:
        canary = wanted.get(edit.prompt)
        if canary and not same(edit.target, canary.target):
            raise InputError(
                f"edit '{edit.id}' makes '{edit.prompt}' say '{edit.target}', but the canary at {canary.id} must say "
                f"'{canary.target}'; withdraw one of them"
            )
