"""Every rival on the same rows, one table: what each gives, keeps and costs.

    python -m benchmarks.rivals --model smollm2 --set zsre --edits 200 --capability 20 --output runs/rivals.jsonl
    python -m benchmarks.rivals --model smollm2 --set zsre --edits 200 --output runs/rivals.jsonl --dry
    python -m benchmarks.rivals --findings --model smollm2 --set zsre --edits 200 --output runs/findings.jsonl
    python -m benchmarks.rivals --report runs/rivals.jsonl
    python -m benchmarks.rivals --findings --report runs/findings.jsonl

`--model` is smollm2, gemma (folders `smollm2` and `gemma-3-270m` in that which FACTPATCH_MODELS names), demo (the
embedded one) or a folder; `--set` is zsre, counterfact (files `zsre_3k.json` and `counterfact_3k.json` in the folder
that FACTPATCH_SETS names), world (the embedded one) or a file. Results append to the output, and a killed run goes on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.rivals.bench import Bench, default_settings
from benchmarks.rivals.findings import findings
from benchmarks.rivals.report import write_report
from benchmarks.rivals.roster import ROSTER, Rival, chosen
from benchmarks.rivals.run import check, run_rival
from benchmarks.rivals.samples import draw_sample, model_path
from factpatch.errors import InputError
from factpatch.models.loading import load_model
from factpatch.models.locations import decoder_blocks

PAGE = Path(__file__).parents[2] / "docs" / "rivals.md"


def main() -> None:
    args = _arguments()
    if args.report:
        write_report(args.report, PAGE, "findings" if args.findings else "rivals")
        return
    try:
        measure_rivals(args)
    except InputError as error:
        sys.exit(str(error))


def measure_rivals(args: argparse.Namespace) -> None:
    """Run the rivals that were asked for; which of them can't run is said before any work."""
    torch.set_num_threads(1)  # costs are processor seconds of one thread
    path = model_path(args.model)
    loaded = load_model(default_settings({"model.path": path}).model)
    layers = len(decoder_blocks(loaded.model)[1])
    rivals = _wanted(findings(layers) if args.findings else ROSTER, args.only)
    sample = draw_sample(args.set, args.edits, args.rows_from, args.seed, loaded.tokenizer)
    names = (Path(args.model).name, Path(args.set).stem)
    bench = Bench(loaded, sample, args.output, path, *names, args.seed, args.capability, args.findings)
    able = _able(bench, rivals, named=bool(args.only) and not args.dry)
    for rival in able:
        if args.dry:
            place = rival.place.location(layers) if rival.place else "-"
            print(f"{rival.name} at {place}: {dict(rival.values)}, choices {list(map(dict, rival.choices))}")
            continue
        start = time.process_time()
        line = run_rival(bench, rival)
        told = {name: found["value"] for name, found in line.get("measures", {}).items()} or line["refused"]
        print(f"{rival.name}: {told}; {time.process_time() - start:.0f} s in all", flush=True)


def _able(bench: Bench, rivals: Sequence[Rival], named: bool) -> list[Rival]:
    """The rivals that can run on this model and sample; of the others it is said why not. InputError for those that
    were asked for by name."""
    able = []
    for rival in rivals:
        try:
            check(bench, rival)
        except InputError as error:
            if named:
                raise
            print(f"left out: {error}", flush=True)
        else:
            able.append(rival)
    return able


def _wanted(roster: tuple[Rival, ...], names: list[str] | None) -> list[Rival]:
    try:
        return chosen(roster, names)
    except KeyError as error:
        raise InputError(
            f"no rival is called {error}; there are {', '.join(rival.name for rival in roster)}"
        ) from error


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--set", default="zsre")
    parser.add_argument("--edits", type=int, default=200)
    parser.add_argument("--rows-from", type=int, default=1000, help="first row to report on; steps are tuned before it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--capability", type=int, default=0, help="items of each capability task; 0 leaves it out")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of the rivals, these alone")
    parser.add_argument("--findings", action="store_true", help="the paper's own findings in place of the rivals")
    parser.add_argument("--dry", action="store_true", help="say what would run, and what can't")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--output", type=Path, help="the file of results, a line each")
    target.add_argument("--report", type=Path, help="write the table and picture of a file of results into the docs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
