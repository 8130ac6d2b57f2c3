"""A release in one value: what `release.json` says, gathered from what the steps wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from factpatch.evaluation.gates import (
    Gate,
    allows,
    judge_base_model,
    judge_certificate,
    judge_format,
    judge_gates,
    judge_weight_change,
)
from factpatch.files import digest_file, digest_value, read_json
from factpatch.settings.config import GateSettings, Settings

RELEASE_SCHEMA = 1
RELEASE_STEPS = ("validate", "probes", "localize", "edit", "evaluate", "regress", "lineage")
OPTIONAL = frozenset({"probes", "lineage"})  # without facts there is nothing to probe; lineage is recorded where DVC
# is in use
MANIFEST = "patch/manifest.json"
PATCH_FILES = ("manifest.json", "patch.safetensors", "undo.safetensors")

Json = Mapping[str, Any]


def read_steps(folder: Path) -> dict[str, Any]:
    """What the steps wrote into an output folder, by step; None for an optional one that did not run."""
    found = {name: folder / f"{name}.json" for name in RELEASE_STEPS}
    return {name: None if name in OPTIONAL and not path.exists() else read_json(path) for name, path in found.items()}


def digest_patch(patch: Path) -> dict[str, str]:
    """SHA-256 of each file of a patch, noted by the steps that measure it; so a patch changed later is found out."""
    return {name: digest_file(patch / name) for name in PATCH_FILES}


def judge_release(folder: Path, steps: Json, settings: GateSettings) -> list[Gate]:
    """Every gate that can be judged before the registry holds the model: what was measured, and the patch itself."""
    from factpatch.patches.certificate import change_norms
    from factpatch.patches.patch import read_patch

    problems = patch_problems(folder, steps)
    if not steps["validate"]["accepted"]:
        changed = [] if problems else list(read_patch(folder / "patch").new)
        return [judge_base_model(changed), judge_certificate(problems)]
    gates = judge_gates(steps["evaluate"], steps["regress"]["tasks"], settings, steps["regress"].get("unmeasured"))
    gates.append(judge_certificate(problems))
    if settings.weight_change is not None and not problems:
        gates.append(judge_weight_change(change_norms(read_patch(folder / "patch")), settings.weight_change))
    return gates


def patch_problems(folder: Path, steps: Json) -> list[str]:
    """What speaks against the patch in an output folder, as sentences: its certificate, and who measured another."""
    from factpatch.patches.certificate import check_certificate

    if problems := check_certificate(folder / "patch"):
        return problems
    now = digest_patch(folder / "patch")
    measured = ["evaluate", *(["regress"] if steps["regress"]["tasks"] else [])]
    return [
        f"The patch is not the one that {name}.json measured; measure again."
        for name in measured
        if steps[name].get("patch") != now
    ]


def release_id(folder: Path, gates: Sequence[Gate]) -> str:
    """Digest of everything a release is made of: the same outputs under the same verdicts are the same release."""
    files = [folder / f"{name}.json" for name in RELEASE_STEPS] + [folder / MANIFEST]
    digests = {str(path.relative_to(folder)): digest_file(path) for path in files if path.exists()}
    return digest_value({"files": digests, "gates": [asdict(gate) for gate in gates]})


def assemble_release(model: str, steps: Json, manifest: Json, gates: Sequence[Gate]) -> dict[str, Any]:
    """The value of `release.json` before it is registered: without version, aliases and the registry's run.

    Args:
        model: name of the registered model.
        steps: as `read_steps` gives them.
        manifest: the patch's.
        gates: verdicts; one that failed or is undecided makes the status `refused`, else it is `registered`.
    """
    location, validate, lineage = steps["localize"]["location"], steps["validate"], steps["lineage"]
    return {
        "schema": RELEASE_SCHEMA,
        "status": "registered" if allows(gates) else "refused",
        "model": model,
        "version": None,
        "base": {key: manifest["base"][key] for key in ("source", "fingerprint")},
        "edits": {key: validate[key] for key in ("total", "accepted", "quarantined")},
        "mode": steps["edit"].get("mode"),
        "location": {key: value for key, value in location.items() if key != "name"},
        "metrics": metric_table(steps["evaluate"]),
        "capability": {name: capability_row(row) for name, row in steps["regress"]["tasks"].items()},
        "gates": [asdict(gate) for gate in gates],
        "timings": {name: step["seconds"] for name, step in steps.items() if step},
        "digests": {
            "edits": manifest["edits"]["digest"],
            "patch": manifest["files"]["patch.safetensors"],
            "base": manifest["base"]["fingerprint"],
            "config": manifest["config_digest"],
            "dvc": {name: entry["md5"] for name, entry in lineage["files"].items()} if lineage else {},
        },
        "versions": manifest["versions"],
    }


def judge_serving(evaluate: Json, settings: GateSettings) -> dict[str, Any]:
    """Each form in which the release will be served: what was measured in it, and whether it is released in it, by the
    floors. One that is not does not hold back the others."""
    found = {}
    for name, metrics in (evaluate.get("formats") or {}).items():
        measured: dict[str, Any] = {**metrics, "protocol": evaluate.get("protocol")}
        gates = judge_format(measured, settings)
        found[name] = {**metrics, "released": allows(gates), "gates": [asdict(gate) for gate in gates]}
    return found


def forms_below(folder: str | Path, settings: Settings) -> list[str]:
    """The forms of `serving.formats` in which what was evaluated does not reach the floors."""
    forms = judge_serving(read_json(Path(folder) / "evaluate.json"), settings.gates)
    return [name for name, form in forms.items() if not form["released"]]


def with_gate(release: Json, gate: Gate) -> dict[str, Any]:
    """A release after one gate more."""
    status = release["status"] if allows([gate]) else "refused"
    return {**release, "status": status, "gates": [*release["gates"], asdict(gate)]}


def metric_table(evaluate: Json) -> dict[str, dict[str, Any]]:
    """Each metric before and after the edit; n, the interval, what is unmeasured beside n
    and what of n the run made belong to `after`. None
    where it was not measured."""
    before = evaluate.get("before") or {}
    return {
        name: {
            "before": (before.get(name) or {}).get("value"),
            "after": evaluate[name]["value"],
            "n": evaluate[name]["n"],
            "ci95": evaluate[name]["ci95"],
            "direction": definition["direction"],
            **({"unit": unit} if (unit := definition.get("unit", "share")) != "share" else {}),
            **{key: count for key in ("unmeasured", "made") if (count := evaluate[name].get(key))},
        }
        for name, definition in evaluate["definitions"].items()
    }


def capability_row(row: Json) -> dict[str, Any]:
    """A task's row of `regress.json`; like a metric's, with the interval of `after` alone."""
    kept = {key: value for key, value in row.items() if not key.startswith("ci95")}
    return {**kept, "ci95": row["ci95_after"]}


def named_numbers(release: Json) -> Iterator[tuple[str, float]]:
    """Every number of a release as (name, value), for stores that know names only: `reliability/after`."""
    rows = {**release["metrics"], **{f"capability/{name}": row for name, row in release["capability"].items()}}
    for name, row in rows.items():
        yield from ((f"{name}/{moment}", row[moment]) for moment in ("before", "after") if row[moment] is not None)
    yield from ((f"seconds/{step}", seconds) for step, seconds in release["timings"].items())
