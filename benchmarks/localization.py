"""Does the search find the place that a whole grid finds, and at what share of its cost?

    python -m benchmarks.localization                 # grids and searches on three samples of the demo edits
    python -m benchmarks.localization --sharing       # what a grid would cost without shared activations
    python -m benchmarks.localization --random 32     # a search on a Llama of 32 layers with random weights
    python -m benchmarks.localization --places 5:mlp  # all edits written at the places named

The first prints, for each sample: the grid's best places, what each signal's ranking has to do with the grid's
(Spearman), the place that the search chooses, and its cost as a share of the grid's; and the grids' mean by layer and
module. Then all edits are written at the places chosen and at the grids' best, and measured as trials are. Trials stay
under runs/localization, so a killed benchmark continues; operations are counted from shapes, so a busy machine changes
seconds alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from scipy.stats import spearmanr
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from factpatch.edits.accepted import read_accepted
from factpatch.edits.request import EditRequest
from factpatch.localization.heat_maps import draw
from factpatch.localization.score import Scorer
from factpatch.localization.search import localize
from factpatch.localization.store import TrialStore, base_digest
from factpatch.localization.trial_set import UNMEASURED_REASONS, make_trial_set
from factpatch.localization.trials import SharedTrunk, run_trial
from factpatch.models.loading import LoadedModel, load_model
from factpatch.models.locations import locate
from factpatch.progress import show_progress
from factpatch.settings.config import Settings, load_settings
from tasks.validate import validate

SEEDS = (0, 1, 2)
SIGNALS = ("update", "gradient", "reach", "overlap")
UNSHARED = ("0:down", "1:mlp", "2:o", "3:up", "4:block", "5:attention", "5:down")  # a place of each layer and kind


def main() -> None:
    args = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        settings = configure(args, 0)
        if args.random:
            settings = replace(settings, model=replace(settings.model, path=save_random(args.random, Path(folder))))
            validate.fn(folder, settings)
            search_random(settings, read_accepted(folder))
            return
        validate.fn(folder, settings)
        edits, loaded = read_accepted(folder), load_model(settings.model)
    if args.sharing:
        compare_sharing(loaded, edits, settings)
        return
    chosen, grids = dict.fromkeys(args.places, "named"), []
    for seed in [] if args.places else args.seeds:
        grid, places = one_sample(loaded, edits, configure(args, seed), seed)
        grids.append(grid)
        chosen |= places
    if grids:
        print(by_layer_and_module(grids))
    write_everything(loaded, edits, configure(args, 0), chosen)


def one_sample(
    loaded: LoadedModel, edits: list[EditRequest], settings: Settings, seed: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """Grid and search on one sample: the grid, and the places worth writing everything at, with why."""
    own = settings.localization
    with show_progress(f"grid {seed}") as report:
        grid = localize(loaded, edits, replace(settings, localization=replace(own, method="grid")), report)
    with show_progress(f"auto {seed}") as report:
        auto = localize(loaded, edits, settings, report)
    score = {cell["location"]: cell["score"] for cell in grid["candidates"]}
    best = sorted(grid["candidates"], key=lambda cell: -cell["score"])
    print(f"\nsample {seed}: {grid['sample']} edits, {len(score)} places")
    for cell in best[:8]:
        shares = ", ".join(f"{name} {cell[name]['value']:.3f}" for name in UNMEASURED_REASONS)
        print(f"  {cell['location']:<18} {cell['score']:.3f} ± {cell['margin']:.3f}  {shares}")
    for name in SIGNALS:
        pairs = [(one[name], score[one["location"]]) for one in auto["ranking"] if one[name] is not None]
        print(f"  {name:<9} against the grid: Spearman {spearmanr(*zip(*pairs, strict=True)).statistic:+.2f}")
    short = [(cell["score"], score[cell["location"]]) for cell in auto["candidates"] if cell["run"] == "short"]
    print(f"  short runs against whole: Spearman {spearmanr(*zip(*short, strict=True)).statistic:+.2f}, n {len(short)}")
    place = [one["location"] for one in auto["ranking"]].index(best[0]["location"]) + 1
    print(f"  the grid's best stands at {place} of {len(score)} in the signal's ranking")
    print(f"  grid: {grid['reason']}\n  auto: {auto['reason']}")
    for unit in ("operations", "visits", "seconds"):
        share = auto["cost"][unit] / grid["cost"][unit]
        print(f"  auto's training {unit}: {auto['cost'][unit]:.4g} of the grid's {grid['cost'][unit]:.4g}, {share:.1%}")
    picture = draw(grid, Path(own.cache or "."))
    print(f"  {picture}")
    return grid, {
        auto["location"]["name"]: "chosen by auto",
        best[0]["location"]: "best of a grid",
        best[1]["location"]: "second of a grid",
        grid["location"]["name"]: "chosen from a grid",
    }


def by_layer_and_module(grids: list[dict[str, Any]]) -> str:
    """The paper's question, as a table: the quality of each kind of module at each layer in percent, mean of all
    samples, with the smallest and the largest."""
    scores: dict[str, dict[int, list[float]]] = {}
    for cell in (cell for grid in grids for cell in grid["candidates"]):
        layers = scores.setdefault(cell["module"] or "block", {})
        layers.setdefault(cell["layer"], []).append(100 * cell["score"])
    lines = [f"\nmodule, mean of {len(grids)} samples | " + " | ".join(map(str, next(iter(scores.values()))))]
    for module, layers in scores.items():
        told = (f"{fmean(found):.1f} ({min(found):.0f}-{max(found):.0f})" for found in layers.values())
        lines.append(f"{module} | " + " | ".join(told))
    return "\n".join(lines)


def write_everything(loaded: LoadedModel, edits: list[EditRequest], settings: Settings, places: dict[str, str]) -> None:
    """All edits written at some places, measured as trials are."""
    trial_set = make_trial_set(loaded, edits, settings, len(edits))
    trials = TrialStore.start(Path(settings.localization.cache or "."), base_digest(loaded), trial_set, settings)
    scorer, trunk = Scorer(trial_set, settings.localization.weights), SharedTrunk(loaded, trial_set, settings)
    print(f"\nall {len(edits)} edits | why | mean | " + " | ".join(UNMEASURED_REASONS) + " | epochs | seconds")
    for name, why in places.items():
        name = locate(loaded.model, name).name
        cell = trials.read(loaded, name, True)
        if cell is None:
            cell = run_trial(trunk, locate(loaded.model, name), settings, whole=True)
            trials.write(cell)
        one = scorer.score(cell)
        shares = " | ".join(_share(one.metrics[metric]) for metric in UNMEASURED_REASONS)
        mean = f"{100 * one.score:.1f} ± {100 * one.margin:.1f}"
        print(f"{name} | {why} | {mean} | {shares} | {cell.epochs} | {cell.seconds:.0f}", flush=True)


def compare_sharing(loaded: LoadedModel, edits: list[EditRequest], settings: Settings) -> None:
    """Some cells as the grid tries them, and each as a run of its own through the whole model."""
    size = settings.localization.sample
    start = time.process_time()
    trial_set = make_trial_set(loaded, edits, settings, size)
    trunk = SharedTrunk(loaded, trial_set, settings)
    locations = [locate(loaded.model, name) for name in UNSHARED]
    trunk.prepare(locations)
    once = time.process_time() - start
    print(f"once for all cells, shared: {once:.1f} s of processor time\nplace | shared | a run of its own | ratio")
    whole = replace(
        settings,
        trunk=replace(settings.trunk, keep=False),
        evaluation=replace(settings.evaluation, cache=None),
    )
    total = [0.0, 0.0]
    for location in locations:
        start = time.process_time()
        cell = run_trial(trunk, location, settings, whole=True)
        shared = time.process_time() - start
        start = time.process_time()
        own = SharedTrunk(loaded, make_trial_set(loaded, edits, whole, size), whole)
        run_trial(own, location, whole, whole=True)
        alone = time.process_time() - start
        total = [total[0] + shared, total[1] + alone]
        print(
            f"{location.name} | {shared:.1f} s | {alone:.1f} s | {alone / shared:.1f} | {cell.epochs} epochs",
            flush=True,
        )
    print(f"together | {total[0]:.1f} s | {total[1]:.1f} s | shared is {total[0] / total[1]:.0%}")


def search_random(settings: Settings, edits: list[EditRequest]) -> None:
    """A search within the default budget on a model that nobody has searched."""
    loaded = load_model(settings.model)
    start = time.perf_counter()
    with show_progress("auto") as report:
        found = localize(loaded, edits, settings, report)
    layers = 1 + max(one["layer"] for one in found["ranking"])
    print(f"{loaded.model.num_parameters() / 1e6:.1f} M parameters, {layers} layers, {len(found['ranking'])} places")
    print(f"{found['cost']['trials']} trials of {found['sample']} edits, {time.perf_counter() - start:.0f} s in all")
    print(f"{found['reason']}\n" + "\n".join(found["notes"]))


def save_random(layers: int, folder: Path) -> str:
    """A narrow Llama with random weights, the reference model's tokenizer and 32 layers, say."""
    tokenizer = AutoTokenizer.from_pretrained("data/model")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    path = folder / "model"
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def configure(args: argparse.Namespace, seed: int) -> Settings:
    """The shipped settings with every role as a candidate and the default budget; `seed` draws the sample."""
    wishes: dict[str, Any] = {
        "training.seed": seed,
        "trunk.folder": None,
        "localization.modules": [],
        "localization.reuse": False,
        "localization.cache": None if args.random else args.output,
    }
    if args.random:
        wishes |= {
            "training.preservation.prompts": None,
            "localization.sample": 24,
            "localization.budget_edits": 288,
        }  # defaults
    else:
        wishes |= {"localization.sample": args.sample, "localization.budget_edits": args.budget}
    return load_settings(None, wishes)


def _share(value: dict[str, Any]) -> str:
    low, high = value["ci95"]
    return f"{100 * value['value']:.1f} ({100 * low:.0f}-{100 * high:.0f})"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="runs/localization", help="folder for trials and pictures")
    parser.add_argument("--sample", type=int, default=16, help="edits of a sample")
    parser.add_argument("--budget", type=int, default=192, help="edits that a search may try, a trial after the other")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--sharing", action="store_true", help="what a grid would cost without shared activations")
    parser.add_argument("--places", nargs="+", default=[], help="write all edits at these places, and nothing else")
    parser.add_argument("--random", type=int, metavar="LAYERS", help="search a random model of so many layers instead")
    return parser.parse_args()


if __name__ == "__main__":
    main()
