"""What do the search's signals and cheap orders have to do with the quality of a place, on a model of your own?

    python -m benchmarks.places MODEL EDITS --places 20:mlp,26:mlp,26:down [--sample 24]

Gives each named place a whole run on a sample of the edits, as `localize` would, and prints its four shares, where the
signal ranked it, and the rank correlation (Spearman) of signals and depth with quality; processor seconds of each part.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from scipy.stats import spearmanr

from factpatch.edits.accepted import read_accepted
from factpatch.localization.places import candidate_locations
from factpatch.localization.score import Scorer
from factpatch.localization.signals import rank_places
from factpatch.localization.trial_set import UNMEASURED_REASONS, make_trial_set
from factpatch.localization.trials import SharedTrunk, run_trial
from factpatch.models.loading import load_model
from factpatch.models.locations import locate
from factpatch.settings.config import load_settings
from tasks.validate import validate

Found = TypeVar("Found")

SIGNALS = ("update", "gradient", "reach", "overlap")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("edits")
    parser.add_argument("--places", required=True, help="with commas between")
    parser.add_argument("--sample", type=int, default=24)
    args = parser.parse_args()
    settings = load_settings(None, {"model.path": args.model, "edits.path": args.edits, "trunk.folder": None})
    with tempfile.TemporaryDirectory() as folder:
        validate.fn(folder, settings)
        edits, loaded = read_accepted(folder), load_model(settings.model)
    trial_set = _timed("exam", lambda: make_trial_set(loaded, edits, settings, min(args.sample, len(edits))))
    candidates = candidate_locations(loaded.model, settings.localization)
    ranking = _timed("signals", lambda: rank_places(loaded, trial_set, candidates))
    signals = {one.location.name: (place, one.signals) for place, one in enumerate(ranking, 1)}
    scorer, trunk = Scorer(trial_set, settings.localization.weights), SharedTrunk(loaded, trial_set, settings)
    places = [locate(loaded.model, name) for name in args.places.split(",")]
    _timed("shared activations", lambda: trunk.prepare(places))
    print(f"place | signal's rank of {len(ranking)} | quality | {' | '.join(UNMEASURED_REASONS)} | epochs | seconds")
    scores: dict[str, float] = {}
    for place in places:
        start = time.process_time()
        trial = run_trial(trunk, place, settings, whole=True)
        one = scorer.score(trial)
        scores[place.name] = one.score
        shares = " | ".join(
            "-" if (value := one.metrics[name]["value"]) is None else f"{value:.2f}" for name in UNMEASURED_REASONS
        )
        rank, seconds = signals[place.name][0], time.process_time() - start
        quality = f"{one.score:.3f} ± {one.margin:.3f}"
        print(f"{place.name} | {rank} | {quality} | {shares} | {trial.epochs} | {seconds:.0f}", flush=True)
    for signal in SIGNALS:
        pairs = [(signals[name][1][signal], score) for name, score in scores.items()]
        print(f"{signal} against quality: {_spearman([pair for pair in pairs if pair[0] is not None])}")
    print(f"layer against quality: {_spearman([(place.layer, scores[place.name]) for place in places])}")


def _timed(what: str, work: Callable[[], Found]) -> Found:
    start = time.process_time()
    found = work()
    print(f"{what}: {time.process_time() - start:.1f} s of processor time", flush=True)
    return found


def _spearman(pairs: Sequence[tuple[Any, float]]) -> str:
    if len(pairs) < 3:
        return "too few"
    return f"Spearman {spearmanr(*zip(*pairs, strict=True)).statistic:+.2f}, n {len(pairs)}"


if __name__ == "__main__":
    main()
