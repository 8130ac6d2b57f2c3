"""The frontier: what each way to train, and each guard alone, gives and costs, on edit sets of the embedded world.

    python -m benchmarks.frontier --results runs/frontier.jsonl             # three samples of 500 edits, a seed each
    python -m benchmarks.frontier --results runs/frontier.jsonl --edits 100 2000 --ways plain default
    python -m benchmarks.frontier --results runs/frontier.jsonl --table --picture docs/frontier.svg

A run is added to the results as soon as it is measured, and not made again. Held-out paraphrases, probes and questions
are never trained (`factpatch.training_data.leakage` checks it); the numbers are means over runs with 95 % t intervals.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.world_edits import Sample, sample_edits, write_kept
from factpatch.editing import edit_model
from factpatch.edits.request import EditRequest
from factpatch.evaluation.answers import matches
from factpatch.evaluation.evaluate import Answers, collect_answers, measure
from factpatch.models.loading import LoadedModel, load_model, preserved, write_values
from factpatch.models.locations import locate
from factpatch.settings.config import Settings, load_settings

PLAIN: dict[str, Any] = {
    "learning_rate": 4e-3,
    "batch_size": None,
    "epochs": 25,
    "preservation.prompts": None,
    "preservation.neighbours": 0,
    "augmentation.wordings": 0,
    "augmentation.prefixes": 0,
    "augmentation.both_forms": False,
    "whitening": None,
}
PRESERVED = PLAIN | {
    "preservation.prompts": "",  # the sample's own
    "preservation.ratio": 3.0,
    "preservation.least": 0,
}
DEFAULT = {"preservation.prompts": "", "preservation.least": 256}
WAYS: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    "depth-first": PLAIN | {"method": "depth-first"},
    "low-rank": PLAIN | {"rank": 16, "learning_rate": 8e-3},
    "cross-entropy": PRESERVED | {"preservation.loss": "cross-entropy"},
    "kl": PRESERVED,
    "neighbours": PRESERVED | {"preservation.prompts": None, "preservation.neighbours": 6},
    "wordings": PLAIN | {"augmentation.wordings": 2},
    "kl, prefixes": PRESERVED | {"augmentation.prefixes": 2},
    "default": DEFAULT,
    "default, low-rank": DEFAULT | {"rank": 16, "learning_rate": 8e-3},
}
SKILLS = ("choice", "sentiment", "translation", "arithmetic")
EACH = 50  # items of each skill
SHOWN = ("reliability", "generalization", "locality", "questions", "skills", "seconds", "visits")


@dataclass(frozen=True)
class Result:
    """One run, shares in [0, 1]; `questions` and `skills` are the changes against the base model."""

    way: str
    edits: int
    sample: int
    seed: int
    reliability: float
    generalization: float
    locality: float
    questions: float
    skills: float
    epochs: int
    visits: int
    seconds: float  # of processor time: companions, trunk and training


BASE: dict[Sample, tuple[Answers, list[float]]] = {}


def run(
    loaded: LoadedModel, location: str, way: str, values: dict[str, Any], count: int, number: int, seed: int
) -> Result:
    """Train one way on one sample, measure, and leave the model as found."""
    sample = sample_edits(count, number)
    with tempfile.TemporaryDirectory() as folder:
        kept = str(write_kept(Path(folder) / "kept.jsonl", sample))
        chosen = {
            name: kept if (name, value) == ("preservation.prompts", "") else value for name, value in values.items()
        }
        settings = load_settings(
            None,
            {f"training.{name}": value for name, value in chosen.items()}
            | {"training.seed": seed, "trunk.folder": None, "evaluation.cache": None, "gates.canaries": None},
        )
        edits, place = sample.edits, locate(loaded.model, location)
        before, base = base_answers(loaded, sample, settings)
        start = time.process_time()
        result = edit_model(loaded, place, edits, settings).training
        seconds = time.process_time() - start
    with preserved(loaded.model, place.parameters):
        write_values(loaded.model, result.values)
        found = measure(edits, collect_answers(loaded, edits, settings, before), before)
        after = [right(loaded, part, settings) for part in (sample.questions, skill_items())]
    shares = [found[name]["value"] for name in ("reliability", "generalization", "locality")]
    changes = [new - old for new, old in zip(after, base, strict=True)]
    return Result(way, count, number, seed, *shares, *changes, len(result.losses), result.visits, round(seconds, 1))


def base_answers(loaded: LoadedModel, sample: Sample, settings: Settings) -> tuple[Answers, list[float]]:
    """What the base model says to a sample, and the shares of questions and skills that it gets right; asked once."""
    if sample not in BASE:
        shares = [right(loaded, part, settings) for part in (sample.questions, skill_items())]
        BASE[sample] = (collect_answers(loaded, sample.edits, settings), shares)
    return BASE[sample]


def right(loaded: LoadedModel, items: Sequence[EditRequest], settings: Settings) -> float:
    """Share of items answered right."""
    answers: Answers = collect_answers(loaded, items, settings)
    return statistics.fmean(matches(answers.outputs[item.prompt], item.target) for item in items)


def skill_items(each: int = EACH) -> list[EditRequest]:
    """The first held-out items of each capability family but the closed-book questions."""
    rows = []
    for skill in SKILLS:
        lines = Path(f"data/capability/world_{skill}.jsonl").read_text(encoding="utf-8").splitlines()[:each]
        rows += [EditRequest(skill, row["prompt"], row["target"]) for row in map(json.loads, lines)]
    return rows


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % t interval (0 for a single value)."""
    from scipy.stats import t

    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, 0.0
    return mean, float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5


def table(results: Sequence[Result]) -> str:
    """Markdown, a row for each number of edits and way; a single run has no interval."""
    groups: dict[tuple[int, str], list[Result]] = defaultdict(list)
    for result in results:
        groups[result.edits, result.way].append(result)
    lines = ["| edits | way | runs | " + " | ".join(SHOWN) + " |", "|" + "---|" * (3 + len(SHOWN))]
    order = list(WAYS)
    for (count, way), runs in sorted(groups.items(), key=lambda item: (item[0][0], order.index(item[0][1]))):
        cells = []
        for name in SHOWN:
            mean, half = interval([getattr(one, name) for one in runs])
            if name in ("seconds", "visits"):
                cells.append(f"{mean:,.0f}")
            else:
                shown = f"{100 * mean:{'+' if name in ('questions', 'skills') else ''}.1f}"
                cells.append(f"{shown} ± {100 * half:.1f}" if len(runs) > 1 else shown)
        lines.append(f"| {count} | {way} | {len(runs)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def picture(results: Sequence[Result], path: Path, count: int) -> None:
    """Generalization against locality, a point a way with its intervals; the goal is shaded."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "frontier"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.5, 5))
    axes.axhspan(95, 100, xmin=0, alpha=0.12, color="tab:green")
    axes.axvspan(95, 100, alpha=0.12, color="tab:green")
    for way in WAYS:
        runs = [one for one in results if one.way == way and one.edits == count]
        if runs:
            (x, dx), (y, dy) = (
                interval([100 * getattr(one, name) for one in runs]) for name in ("locality", "generalization")
            )
            axes.errorbar(x, y, xerr=dx, yerr=dy, marker="o", capsize=2, label=way, linestyle="none")
    axes.set(
        xlabel="locality, %", ylabel="generalization, %", title=f"{count} edits; reliability and costs in the table"
    )
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")


def read_results(path: Path) -> list[Result]:
    """Those of earlier runs."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [Result(**json.loads(line)) for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--edits", type=int, nargs="+", default=[500])
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--runs", type=int, default=3, help="samples of edits; the seed is the sample's number")
    parser.add_argument("--all-seeds", action="store_true", help="every seed on every sample")
    parser.add_argument("--location", default="5:mlp")
    parser.add_argument("--table", action="store_true", help="make no run")
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    done = {(one.way, one.edits, one.sample, one.seed) for one in read_results(args.results)}
    args.results.parent.mkdir(parents=True, exist_ok=True)
    pairs = [(one, two) for one in range(args.runs) for two in range(args.runs) if args.all_seeds or one == two]
    wanted = [(way, count, *pair) for count in args.edits for pair in pairs for way in args.ways]
    loaded = None if args.table else load_model(load_settings(None).model)
    for way, count, number, seed in wanted if loaded else ():
        if (way, count, number, seed) not in done:
            result = run(loaded, args.location, way, WAYS[way], count, number, seed)
            with args.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(result)) + "\n")
            print(result, flush=True)
    results = read_results(args.results)
    print(table(results))
    if args.picture:
        picture(results, args.picture, args.edits[0])


if __name__ == "__main__":
    main()
