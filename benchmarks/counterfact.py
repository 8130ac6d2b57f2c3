"""CounterFact's real rows on the reference model: paraphrases with their unrelated beginnings and without.

    python -m benchmarks.counterfact counterfact_3k.json --edits 200

The model never saw these names and relations, so this shows how edits of unknown strings take and spread, no knowledge:
generalization as published, generalization on the same paraphrases without what stands before the sentence that names
the subject, and locality as the share of probes whose answer is still the base model's own. Means over samples.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.frontier import WAYS
from factpatch.editing import edit_model
from factpatch.edits.loading import read_rows
from factpatch.edits.request import EditRequest
from factpatch.evaluation.evaluate import collect_answers, measure
from factpatch.models.loading import LoadedModel, load_model, preserved, write_values
from factpatch.models.locations import locate
from factpatch.settings.config import Settings, load_settings

BREAK = re.compile(r"(?<=[.?!)])\s+|\n+")
DEFAULT = ("plain", "default", "default, prefixes")


def without_beginning(paraphrase: str, subject: str) -> str:
    """The paraphrase from the sentence on that first names the subject; all of it if none does."""
    starts = [0, *(match.end() for match in BREAK.finditer(paraphrase))]
    named = paraphrase.find(subject)
    return paraphrase if named < 0 else paraphrase[max(start for start in starts if start <= named) :]


def read_edits(path: str, count: int, seed: int) -> list[EditRequest]:
    """A sample of the rows, one for each prompt."""
    rows = {row.values["prompt"]: EditRequest.from_row(row.values) for row in read_rows(path)}
    return random.Random(seed).sample(list(rows.values()), count)


def run(loaded: LoadedModel, edits: Sequence[EditRequest], settings: Settings, location: str) -> list[float]:
    """The metrics' values after one run."""
    bare = [
        replace(edit, paraphrases=tuple(without_beginning(text, edit.subject or "") for text in edit.paraphrases))
        for edit in edits
    ]
    before = [collect_answers(loaded, part, settings) for part in (edits, bare)]
    place = locate(loaded.model, location)
    result = edit_model(loaded, place, edits, settings).training
    with preserved(loaded.model, place.parameters):
        write_values(loaded.model, result.values)
        found = [
            measure(part, collect_answers(loaded, part, settings, base), base)
            for part, base in zip((edits, bare), before, strict=True)
        ]
    full, cut = found
    return [
        full["reliability"]["value"],
        full["generalization"]["value"],
        cut["generalization"]["value"],
        full["locality"]["value"],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", help="the data set's file")
    parser.add_argument("--edits", type=int, default=200)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--ways", nargs="+", default=list(DEFAULT))
    parser.add_argument("--location", default="5:mlp")
    args = parser.parse_args()
    loaded = load_model(load_settings(None).model)
    ways = WAYS | {"default, prefixes": {"augmentation.prefixes": 2}}
    print("| way | samples | reliability | generalization | without beginnings | locality |")
    print("|---|---|---|---|---|---|")
    for way in args.ways:
        values = ways[way] | {"preservation.prompts": None}  # the world's prompts have nothing to do with these
        overrides = {f"training.{name}": value for name, value in values.items()}
        overrides |= {"trunk.folder": None, "gates.canaries": None}
        runs = [
            run(
                loaded,
                read_edits(args.rows, args.edits, seed),
                load_settings(None, overrides | {"training.seed": seed}),
                args.location,
            )
            for seed in range(args.samples)
        ]
        means = [(statistics.fmean(column), min(column), max(column)) for column in zip(*runs, strict=True)]
        cells = [f"{100 * mean:.1f} ({100 * low:.1f}-{100 * high:.1f})" for mean, low, high in means]
        print(f"| {way} | {len(runs)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
