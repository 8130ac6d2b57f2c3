"""The paper's central comparison on this machine: breadth-first against depth-first, same edits, same location.

    python -m benchmarks.methods --location 4:mlp.down_proj

Every method trains on the same accepted edits; free generation before and after; a row a method and step size.
"""

from __future__ import annotations

import argparse
import tempfile
import time

from factpatch.editing import edit_model
from factpatch.edits.accepted import read_accepted
from factpatch.evaluation.evaluate import Answers, collect_answers, measure
from factpatch.evaluation.suites import chosen_tasks
from factpatch.models.loading import LoadedModel, load_model, preserved, write_values
from factpatch.models.locations import locate
from factpatch.settings.config import Settings, load_settings, override
from tasks.regress import load_tasks, score
from tasks.validate import validate

HEADER = ("method", "step", "batch", "epochs", "seconds", "reliability", "generalization", "locality")

PLAIN = {  # nothing but the edits' own rows
    "training.preservation.prompts": None,
    "training.preservation.neighbours": 0,
    "training.augmentation.wordings": 0,
    "training.augmentation.prefixes": 0,
}


def run_row(loaded: LoadedModel, edits: list, settings: Settings, before: Answers, capability: bool) -> list[str]:
    """Train once, measure, put the model back; the cells of one row."""
    training = settings.training
    location = locate(loaded.model, settings.localization.location)
    start = time.perf_counter()
    result = edit_model(loaded, location, edits, settings).training
    seconds = time.perf_counter() - start
    with preserved(loaded.model, location.parameters):
        write_values(loaded.model, result.values)
        measured = measure(edits, collect_answers(loaded, edits, settings, before), before)
        scores = capability_scores(loaded, settings) if capability else []
    epochs = len(result.losses) if training.method == "breadth-first" else "-"
    batch = training.batch_size or "16 to 100" if training.method == "breadth-first" else 1
    name = f"{training.method}, as configured" if training.preservation.prompts else training.method
    cells = [name, f"{training.learning_rate:g}", str(batch), str(epochs), f"{seconds:.0f}"]
    return cells + [_cell(measured[name]) for name in HEADER[5:]] + scores


def capability_scores(loaded: LoadedModel, settings: Settings) -> list[str]:
    """Each capability task's score in percent."""
    results = score(loaded, load_tasks(settings.capability), settings.capability)
    return [f"{100 * result.value:.1f}" for result in results.values()]


def _cell(metric: dict) -> str:
    if metric["value"] is None:  # these edits have no such prompts
        return "-"
    low, high = metric["ci95"]
    return f"{100 * metric['value']:.1f} ({100 * low:.0f}-{100 * high:.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config")
    parser.add_argument("--model")
    parser.add_argument("--edits")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--location", required=True)
    parser.add_argument("--steps", type=float, nargs="+", help="step sizes (default: the configured one)")
    parser.add_argument("--no-capability", action="store_true")
    args = parser.parse_args()
    wishes = {"model.path": args.model, "edits.path": args.edits, "edits.limit": args.limit}
    wishes |= {"localization.location": args.location}
    settings = load_settings(args.config, {name: value for name, value in wishes.items() if value is not None})
    with tempfile.TemporaryDirectory() as folder:
        validate.fn(folder, settings)
        edits = read_accepted(folder)
    loaded = load_model(settings.model)
    before = collect_answers(loaded, edits, settings)
    tasks = () if args.no_capability else [task.name for task in chosen_tasks(settings.capability)]
    print(f"{len(edits)} edits at {args.location} of {settings.model.path}; percent, 95 % interval in brackets")
    print(" | ".join((*HEADER, *tasks)))
    base = measure(edits, before, None)
    cells = ["(before)", "-", "-", "-", "-", _cell(base["reliability"]), _cell(base["generalization"]), "-"]
    print(" | ".join(cells + (capability_scores(loaded, settings) if tasks else [])), flush=True)
    variants = [("breadth-first", None), ("depth-first", None)]
    if settings.training.preservation.prompts:
        variants.insert(0, ("breadth-first", settings.training.preservation.prompts))
    for step in args.steps or [settings.training.learning_rate]:
        for method, prompts in variants:
            values = {"training.method": method, "training.learning_rate": step, **({} if prompts else PLAIN)}
            row = run_row(loaded, edits, override(settings, values), before, bool(tasks))
            print(" | ".join(row), flush=True)


if __name__ == "__main__":
    main()
