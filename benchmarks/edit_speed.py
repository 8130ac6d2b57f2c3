"""factpatch's engine against a plain loop: same model, same edits, same location, one machine, one run.

    python -m benchmarks.edit_speed                       # the reference model
    python -m benchmarks.edit_speed --model large         # a Llama of 184 M random weights with 128,256 tokens
    python -m benchmarks.edit_speed --model 8b --device cuda --edits zsre.json --limit 3000

The plain loop is what a fine-tuning script does: every step runs the whole model forward and backward, with logits at
all positions of a randomly drawn, padded batch. `plain, frozen` is the same with gradients for the located tensors
alone, so that the backward pass ends there. Each row of the table is a process of its own, so that peak memory is its
own. All have the same step size; the plain loop has the paper's 100 edits in a batch, the engine chooses batches,
and in a second row has the same 100. All end when 99 % of the edits are right, or after the epochs or seconds given.
Right means that each token of the target is the most likely one; checking that is not timed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from factpatch.editing import encode_edits
from factpatch.edits.accepted import read_accepted
from factpatch.files import new_folder
from factpatch.frozen_trunk import Rows, open_rows
from factpatch.methods.base import EditJob, TrainingRows
from factpatch.methods.breadth_first.training import breadth_first
from factpatch.models.encoding import Encoded, padding_id
from factpatch.models.forward import collate, target_counts
from factpatch.models.loading import LoadedModel, load_model
from factpatch.models.locations import Location, default_module, locate
from factpatch.preflight.machine import matrix_rate
from factpatch.settings.config import ModelSettings, TrainingSettings, TrunkSettings, load_settings
from factpatch.settings.training import NO_PRESERVATION
from tasks.validate import validate

SHAPES = {  # random weights: hidden, intermediate, layers, heads, key-value heads, vocabulary
    "large": (768, 2048, 12, 12, 12, 128256),
    "8b": (4096, 14336, 32, 32, 8, 128256),
}
PAPER_STEP, GOAL = 5e-4, 0.99
RATES = 20  # times that the machine's matrix rate is measured; the fastest counts
FULL_EPOCHS = 3  # that an epoch with every edit is timed in; the quickest counts


@dataclass(frozen=True)
class Case:
    """One row of the table: how to train, where, with what."""

    engine: str  # "factpatch", "factpatch, batch 100", "plain", "plain, frozen"
    model: ModelSettings
    location: str
    training: TrainingSettings
    edits: str  # folder with accepted edits
    seconds: float  # budget


def main() -> None:
    args = _arguments()
    settings = load_settings(None, {"edits.limit": args.limit} | ({"edits.path": args.edits} if args.edits else {}))
    with tempfile.TemporaryDirectory() as folder:
        path = str(save_random(args.model, Path(folder) / "model", args.device)) if args.model in SHAPES else args.model
        model = ModelSettings(path=path, dtype=args.dtype, device=args.device)
        validate.fn(folder, replace(settings, model=model))
        layers, module = _layers(path)
        rate = max(matrix_rate(args.device, getattr(torch, args.dtype)) for _ in range(RATES))
        edits = len(read_accepted(folder))
        print(f"{args.model} on {args.device}, {edits} edits; matrix rate {rate / 1e9:.0f} GFLOP/s")
        print("location | engine | s/epoch | epochs | s to 99 % | reliability | peak MB | of matrix rate")
        for layer in args.layers or sorted({2 * layers // 3, layers - 1}):
            plain = replace(
                settings.training,
                preservation=NO_PRESERVATION,
                learning_rate=args.step,
                schedule="constant",
                batch_size=100,
                epochs=args.epochs,
                revisit=False,
            )
            own = replace(plain, batch_size=None, revisit=True, confidence=0.6)
            same = replace(own, batch_size=plain.batch_size)
            cases = [("factpatch", own), ("factpatch, batch 100", same), ("plain", plain), ("plain, frozen", plain)]
            if args.paper:
                cases.append(("plain", replace(plain, learning_rate=PAPER_STEP, epochs=25)))
            first = None
            for engine, training in cases:
                case = Case(engine, model, f"{layer}:{module}", training, folder, args.seconds)
                result = in_own_process(case)
                first = first or result
                print(" | ".join(_cells(case, result, first, rate)), flush=True)


def in_own_process(case: Case) -> dict:
    """Run a case in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return json.loads(pool.apply(run_case, (case,)))


def run_case(case: Case) -> str:
    """Train and time; JSON, which crosses processes without pickled classes."""
    loaded = load_model(case.model)
    rows = encode_edits(loaded, read_accepted(Path(case.edits)), False)
    base = _peak(case.model.device)
    train = train_factpatch if case.engine.startswith("factpatch") else train_plain
    result = train(loaded, rows, case)
    return json.dumps(result | {"peak": _peak(case.model.device), "loaded": base})


class Enough(Exception):
    """A row of the table has what it needs."""


class Clock:
    """Training time without the checks between epochs."""

    def __init__(self, budget: float) -> None:
        self.spent, self.budget, self.epochs, self.reached = 0.0, budget, [], None
        self.start = time.perf_counter()

    def stop(self) -> None:
        _synchronize()
        self.epochs.append(time.perf_counter() - self.start)
        self.spent += self.epochs[-1]

    def go(self, reliability: float) -> None:
        """After a check; raises Enough at the goal, or where the budget is spent."""
        if reliability >= GOAL:
            self.reached = self.spent
        if self.reached is not None or self.spent > self.budget:
            raise Enough
        self.start = time.perf_counter()


def train_factpatch(loaded: LoadedModel, rows: list[Encoded], case: Case) -> dict:
    """The engine, its trunk pass included, from an empty cache."""
    location, clock, reliability = locate(loaded.model, case.location), Clock(case.seconds), [0.0]
    everything = list(range(len(rows)))
    with (
        tempfile.TemporaryDirectory() as cache,
        open_rows(loaded, location, rows, TrunkSettings(folder=cache)) as opened,
    ):
        clock.stop()
        trunk = clock.spent
        clock.start = time.perf_counter()

        def check(epoch: int, epochs: int, loss: float) -> None:
            clock.stop()
            reliability.append(right_share(opened.predict, everything))
            clock.go(reliability[-1])

        with suppress(Enough):
            breadth_first(EditJob(loaded, location, TrainingRows(opened.rows), case.training, progress=check), opened)
        full = full_epoch(loaded, location, opened, case.training)
        operations = count_operations(loaded, location, lambda: opened.predict(everything[:100]))
        engine = opened.engine
    operations *= len(rows) / min(100, len(rows))
    return _result(clock, reliability, full, operations, trunk, engine)


def full_epoch(loaded: LoadedModel, location: Location, opened: Rows, training: TrainingSettings) -> float:
    """Seconds of an epoch that visits every edit, the quickest of a few."""
    ends = [time.perf_counter()]

    def note(epoch: int, epochs: int, loss: float) -> None:
        _synchronize()
        ends.append(time.perf_counter())

    every = replace(training, epochs=FULL_EPOCHS, revisit=False, stop_loss=0.0)
    breadth_first(EditJob(loaded, location, TrainingRows(opened.rows), every, progress=note), opened)
    return min(end - start for start, end in pairwise(ends))


def train_plain(loaded: LoadedModel, rows: list[Encoded], case: Case) -> dict:
    """An ordinary fine-tuning loop."""
    model, pad = loaded.model, padding_id(loaded.tokenizer)
    location, training = locate(model, case.location), case.training
    model.requires_grad_(case.engine == "plain")
    located = [model.get_parameter(name).requires_grad_(True) for name in location.parameters]
    optimizer = torch.optim.Adam(located, lr=training.learning_rate)
    order, clock, reliability = list(range(len(rows))), Clock(case.seconds), [0.0]
    generator, opened = random.Random(training.seed), Rows(loaded, rows)

    def loss_of(chosen: list[int]) -> torch.Tensor:
        batch = collate([rows[index] for index in chosen], pad, model.device)
        logits_BTV = model(input_ids=batch.ids_BT, attention_mask=batch.attention_BT, use_cache=False).logits
        kept = batch.target_BK.shape[1]
        loss_BK = functional.cross_entropy(
            logits_BTV[:, -kept - 1 : -1].float().transpose(1, 2), batch.target_BK, reduction="none"
        )
        mask_BK = batch.target_mask_BK
        return (loss_BK.masked_fill(~mask_BK, 0).sum(1) / mask_BK.sum(1)).mean()

    with suppress(Enough):
        for _ in range(training.epochs):
            generator.shuffle(order)
            for first in range(0, len(order), training.batch_size):
                chosen = order[first : first + training.batch_size]
                model.zero_grad()
                loss = loss_of(chosen)
                loss.backward()
                optimizer.step()
                loss.item()
            clock.stop()
            reliability.append(right_share(opened.predict, list(range(len(rows)))))
            clock.go(reliability[-1])
    with FlopCounterMode(display=False) as counter:
        loss_of(order[:100]).backward()
    operations = counter.get_total_flops() * len(rows) / min(100, len(rows))
    return _result(clock, reliability, min(clock.epochs), operations, 0.0, f"step {training.learning_rate:g}")


def count_operations(loaded: LoadedModel, location, predict) -> int:
    """Floating-point operations of one mini-batch, forward and backward."""
    parameters = [loaded.model.get_parameter(name).requires_grad_(True) for name in location.parameters]
    with FlopCounterMode(display=False) as counter:
        predictions = predict()
        functional.cross_entropy(predictions.logits_PV.float(), predictions.target_P).backward()
    for parameter in parameters:
        parameter.requires_grad_(False).grad = None
    return counter.get_total_flops()


def right_share(predict, indices: list[int]) -> float:
    """Share of rows whose every target token is the most likely one."""
    right = 0
    with torch.no_grad():
        for first in range(0, len(indices), 50):
            found = predict(indices[first : first + 50])
            hits = (found.logits_PV.argmax(-1) == found.target_P)[found.real_P].cpu()
            right += sum(bool(part.all()) for part in hits.split(target_counts(found).tolist()))
    return right / len(indices)


def save_random(name: str, folder: Path, device: str) -> Path:
    """A Llama with random weights and the reference model's tokenizer."""
    hidden, intermediate, layers, heads, shared, vocabulary = SHAPES[name]
    tokenizer = AutoTokenizer.from_pretrained("data/model")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=shared,
        max_position_embeddings=512,
        initializer_range=0.05 if hidden < 2048 else 0.02,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="bfloat16" if hidden >= 2048 else "float32",
    )
    with torch.device(device):
        model = LlamaForCausalLM(config).to(torch.bfloat16 if hidden >= 2048 else torch.float32)
    with new_folder(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    return folder


def _result(clock: Clock, reliability: list[float], epoch: float, operations: float, trunk: float, note: str) -> dict:
    done = clock.epochs[1:] if trunk else clock.epochs
    return {
        "epoch": epoch,
        "epochs": len(done),
        "reached": clock.reached,
        "reliability": reliability[-1],
        "rate": operations / epoch,
        "trunk": trunk,
        "note": note,
    }


def _cells(case: Case, result: dict, first: dict, rate: float) -> list[str]:
    reached = "not reached" if result["reached"] is None else f"{result['reached']:.2f}"
    if result["reached"] and first["reached"]:
        reached += f" ({result['reached'] / first['reached']:.1f}x)"
    trunk = f", trunk {result['trunk']:.2f} s" if result["trunk"] else ""
    return [
        case.location,
        f"{case.engine} ({result['note']}{trunk})",
        f"{result['epoch']:.3f} ({result['epoch'] / first['epoch']:.1f}x)",
        str(result["epochs"]),
        reached,
        f"{100 * result['reliability']:.1f} %",
        f"{result['peak']:.0f} ({result['peak'] - result['loaded']:+.0f} after loading)",
        f"{result['rate'] / rate:.0%}",
    ]


def _layers(path: str) -> tuple[int, str]:
    """How many decoder blocks, and the default module."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return config.get_text_config().num_hidden_layers, default_module(model)


def _peak(device: str) -> float:
    """Megabytes."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="data/model", help="a folder, or random weights: " + ", ".join(SHAPES))
    parser.add_argument("--edits", help="default: the configured ones")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--layers", type=int, nargs="+", help="default: two thirds of the depth, and the last")
    parser.add_argument("--step", type=float, default=8e-3, help="Adam's step size, for both")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=300, help="training time that a row may take")
    parser.add_argument("--paper", action="store_true", help="the plain loop with the paper's step size as well")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    return parser.parse_args()


if __name__ == "__main__":
    main()
