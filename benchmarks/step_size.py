"""Is the step size that a run finds by itself as good as the best of a sweep?

    python -m benchmarks.step_size MODEL ROWS --edits 200 --location 20:mlp.down_proj --output runs/step_size.jsonl

Writes the same edits once with `learning_rate: auto` and once with each of six steps, all else as by default. A line a
run: reliability, generalization and locality (of the answers' content) in percent, their mean, and by how much the bits
a byte of general text rose. Results append to the output; a run that stands there is not made again.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import torch
import yaml

from benchmarks.counterfact import read_edits
from factpatch.editing import run_edit
from factpatch.edits.request import EditRequest
from factpatch.evaluation.evaluate import Answers, collect_answers, measure
from factpatch.frozen_trunk import open_rows
from factpatch.methods.base import TrainingRows
from factpatch.methods.learning_rate import with_step_size
from factpatch.models.encoding import Encoded
from factpatch.models.forward import token_losses
from factpatch.models.loading import LoadedModel, load_model, preserved, write_values
from factpatch.models.locations import Location, locate
from factpatch.settings.config import Settings, load_settings
from factpatch.training_data.rows import find_training_rows

STEPS = (5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2)
METRICS = ("reliability", "generalization", "locality_content")
PARAGRAPHS, TOKENS = 64, 256  # of general text, and of each paragraph at most


def text_rows(loaded: LoadedModel) -> list[Encoded]:
    """Paragraphs of general text, all of each to be predicted but its first token."""
    lines = (files("factpatch.evaluation.portable") / "text.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines[:PARAGRAPHS]]
    return [Encoded(tuple(ids[:TOKENS]), 1) for ids in loaded.tokenizer(texts).input_ids]


def text_losses(loaded: LoadedModel, rows: Sequence[Encoded], settings: Settings) -> list[float]:
    """Mean loss of a token of each paragraph of general text."""
    losses = []
    with open_rows(loaded, None, rows, settings.trunk) as opened, torch.no_grad():
        for index in range(len(rows)):
            predictions = opened.predict([index])
            losses.append(float(token_losses(predictions)[predictions.real_P].mean()))
    return losses


def text_loss(loaded: LoadedModel, rows: Sequence[Encoded], settings: Settings) -> float:
    """Mean loss of a token of general text."""
    tokens = [len(row.ids) - row.prompt_length for row in rows]
    losses = text_losses(loaded, rows, settings)
    return sum(loss * count for loss, count in zip(losses, tokens, strict=True)) / sum(tokens)


def run(
    loaded: LoadedModel,
    edits: Sequence[EditRequest],
    training_rows: TrainingRows,
    before: Answers,
    place: Location,
    settings: Settings,
) -> dict[str, float]:
    """Train at the step that the settings name, and measure; the model is left as found."""
    start = time.process_time()
    training = with_step_size(settings.training, loaded.model, place)
    text = text_rows(loaded)
    base_loss = text_loss(loaded, text, settings)
    result = run_edit(loaded, place, edits, settings, training_rows)
    with preserved(loaded.model, place.parameters):
        write_values(loaded.model, result.values)
        found = measure(edits, collect_answers(loaded, edits, settings, before), before)
        rise = text_loss(loaded, text, settings) / base_loss - 1
    shares = {name: 100 * found[name]["value"] for name in METRICS}
    return {
        "learning_rate": training.step_size,
        **shares,
        "mean": sum(shares.values()) / len(shares),
        "text_rise": 100 * rise,
        "epochs": len(result.losses),
        "visits": result.visits,
        "unsure": len(result.unsure or ()),
        "seconds": time.process_time() - start,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("rows", help="the data set's file")
    parser.add_argument("--edits", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--location", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=float, nargs="*", default=STEPS)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further settings")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    common = {"model.path": args.model, "model.device": args.device, "trunk.folder": None, "evaluation.cache": None}
    common |= {"training.preservation.prompts": None, "training.seed": args.seed}
    common |= {key: yaml.safe_load(value) for key, _, value in (one.partition("=") for one in args.set)}
    settings = load_settings(None, common)
    loaded = load_model(settings.model)
    edits, place = read_edits(args.rows, args.edits, args.seed), locate(loaded.model, args.location)
    before = collect_answers(loaded, edits, settings)
    training_rows = find_training_rows(loaded, edits, settings)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.touch()
    known = {tuple(json.loads(line)["run"]) for line in args.output.read_text(encoding="utf-8").splitlines()}
    for step in ("auto", *args.steps):
        name = (args.model, Path(args.rows).name, args.location, args.edits, args.seed, *args.set, step)
        if name in known:
            continue
        own = load_settings(None, common | {"training.learning_rate": step})
        found = run(loaded, edits, training_rows, before, place, own)
        line = {"run": name, **{key: round(value, 6) for key, value in found.items() if math.isfinite(value)}}
        with args.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
