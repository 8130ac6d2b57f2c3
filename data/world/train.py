"""Train the reference model on the world's stream: ``python -m data.world.train``.

One document a row, never packed, so that training sees exactly what inference sees: the prompt at position 0. The loss
is on the answer and the end of the text; the prompts are mostly noise that nobody could predict. Deterministic from
the seed, resumable from a checkpoint outside the repository, float32 throughout.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from data.world import vocabulary
from data.world.corpus import BROAD, REASONING, documents, vocabulary_texts
from data.world.facts import RELATIONS, SEED, all_facts
from data.world.families import FAMILIES, held_out
from data.world.muon import Muon
from data.world.recall import recall

MODEL = Path(__file__).parent.parent / "model"


@dataclass(frozen=True)
class Recipe:
    """Every choice of the training run: the second stage begins at step ``turn``, the run ends at step ``steps``."""

    width: int = 256
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    hidden: int = 576
    tokens_per_batch: int = 3072
    matrix_lr: float = 0.02
    other_lr: float = 3e-3
    weight_decay: float = 0.0
    warmup: int = 60
    optimizer: str = "muon"
    turn: int = 1000
    steps: int = 2229
    evenness: tuple[float, float] = (0.0, 0.5)
    seed: int = SEED


@dataclass(frozen=True)
class Options:
    """Where a run writes and when it reports."""

    output: Path
    checkpoint: Path
    limit_s: float
    watch_s: float


@dataclass(frozen=True)
class Row:
    """A document as ids; the answer starts at ``start``."""

    ids: list[int]
    start: int


def encode(rows: list[tuple[str, str]], tokenizer: PreTrainedTokenizerFast) -> list[Row]:
    """Ids of prompt, space, target, EOS, with the length of the prompt."""
    wholes = tokenizer([f"{prompt} {target}{vocabulary.EOS}" for prompt, target in rows])["input_ids"]
    heads = tokenizer([prompt for prompt, _ in rows])["input_ids"]
    return [Row(whole, len(head)) for whole, head in zip(wholes, heads, strict=True)]


def batches(rows: list[Row], budget: int, seed: int, window: int = 4096) -> list[list[Row]]:
    """Cut the stream into batches of at most ``budget`` padded tokens, grouped by length inside a moving window."""
    rng = random.Random(f"{seed}/batches")
    result: list[list[Row]] = []
    for begin in range(0, len(rows), window):
        group = sorted(rows[begin : begin + window], key=lambda row: len(row.ids))
        made: list[list[Row]] = [[]]
        for row in group:
            if made[-1] and (len(made[-1]) + 1) * len(row.ids) > budget:
                made.append([])
            made[-1].append(row)
        rng.shuffle(made)
        result += made
    return result


def tensors(batch: list[Row]) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids, and the number of the prompt's ids."""
    longest = max(len(row.ids) for row in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    for index, row in enumerate(batch):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
    return ids, torch.tensor([[row.start, len(row.ids)] for row in batch])


def batch_loss(model: LlamaForCausalLM, batch: list[Row], evenness: float) -> torch.Tensor:
    """Mean cross-entropy over answers. An answer token weighs its answer's length to the power of minus ``evenness``:
    0 counts tokens, 1 counts answers. Padding is to the right, so causal attention never sees it and needs no mask."""
    ids, spans = tensors(batch)
    states = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    place = torch.arange(1, ids.shape[1]).unsqueeze(0)
    answer = (place >= spans[:, :1]) & (place < spans[:, 1:])
    losses = functional.cross_entropy(model.lm_head(states[answer]), ids[:, 1:][answer], reduction="none")
    weights = (spans[:, 1] - spans[:, 0]).float().pow(-evenness).unsqueeze(1).expand(answer.shape)[answer]
    return (losses * weights).sum() / weights.sum()


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A fresh Llama with tied embeddings."""
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        max_position_embeddings=vocabulary.CONTEXT,
        tie_word_embeddings=True,
        initializer_range=0.03,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    return LlamaForCausalLM(config)


def optimizers(model: LlamaForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for embeddings and norms; or AdamW for all."""
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers." in name]
    known = {id(p) for p in inner}
    outer = [p for p in model.parameters() if id(p) not in known]
    adam: dict[str, object] = {"betas": (0.9, 0.98), "weight_decay": 0.0, "fused": True}
    if recipe.optimizer == "adamw":
        steppers: list[torch.optim.Optimizer] = [torch.optim.AdamW(inner + outer, lr=recipe.other_lr, **adam)]  # type: ignore[arg-type]
    else:
        steppers = [
            Muon(inner, lr=recipe.matrix_lr, weight_decay=recipe.weight_decay),
            torch.optim.AdamW(outer, lr=recipe.other_lr, **adam),  # type: ignore[arg-type]
        ]
    for stepper in steppers:
        for group in stepper.param_groups:
            group["peak"] = group["lr"]
    return steppers


def rate(progress: float, step: int, warmup: int) -> float:
    """Warm-up, then a straight line to zero."""
    return min((step + 1) / warmup, 1.0) * max(1.0 - progress, 0.0)


@torch.no_grad()
def exact(model: LlamaForCausalLM, rows: list[Row], budget: int = 6144) -> float:
    """Share of rows whose whole answer, EOS included, is the arg-max at every position: what greedy decoding yields."""
    model.eval()
    right = 0
    for batch in batches(rows, budget, 0, window=len(rows)):
        ids, spans = tensors(batch)
        place = torch.arange(1, ids.shape[1]).unsqueeze(0)
        answer = (place >= spans[:, :1]) & (place < spans[:, 1:])
        states = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        hit = torch.ones_like(answer)
        hit[answer] = model.lm_head(states[answer]).argmax(-1) == ids[:, 1:][answer]
        right += int(hit.all(dim=1).sum())
    model.train()
    return right / len(rows)


def probes(tokenizer: PreTrainedTokenizerFast, size: int = 200) -> dict[str, list[Row]]:
    """Small samples to watch during training: facts in any wording, and each family's held-out items."""
    rng = random.Random(SEED)
    facts = [(rng.choice(RELATIONS[f.relation].wordings).format(s=f.subject), f.target) for f in all_facts()]
    shown = {"facts": rng.sample(facts, 2 * size)}
    shown |= {family: [(item.prompt, item.target) for item in held_out(family)[-size:]] for family in FAMILIES}
    shown["recall"] = [(item.prompt, item.target) for item in (recall(rng) for _ in range(size))]
    return {name: encode(pairs, tokenizer) for name, pairs in shown.items()}


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path, summary: dict[str, object]) -> None:
    """Write model, tokenizer and training summary beside the folder, then put them in its place."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".model-"))
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, max_new_tokens=32
    )
    model.save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    (fresh / "training.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    fresh.chmod(0o755)
    for path in fresh.iterdir():
        path.chmod(0o644)
    if folder.exists():
        folder.rename(fresh.with_suffix(".old"))
    fresh.rename(folder)
    shutil.rmtree(fresh.with_suffix(".old"), ignore_errors=True)


@dataclass
class Run:
    """The state of a run, all of which a checkpoint holds."""

    model: LlamaForCausalLM
    steppers: list[torch.optim.Optimizer]
    choices: str
    step: int = 0
    seconds: float = 0.0
    tokens: int = 0

    def keep(self, folder: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {"model": self.model.state_dict(), "steppers": [stepper.state_dict() for stepper in self.steppers]}
        counts = {"choices": self.choices, "step": self.step, "seconds": self.seconds, "tokens": self.tokens}
        torch.save(state | counts, folder / "state.tmp")
        (folder / "state.tmp").replace(folder / "state.pt")

    def restore(self, folder: Path) -> None:
        """Go on from a checkpoint, if there is one."""
        if not (folder / "state.pt").exists():
            return
        state = torch.load(folder / "state.pt", weights_only=True)
        if state.get("choices", self.choices) != self.choices:
            raise SystemExit(f"{folder} holds a run with other choices: delete it or name another --checkpoint")
        self.model.load_state_dict(state["model"])
        for stepper, held in zip(self.steppers, state["steppers"], strict=True):
            peaks = [group["peak"] for group in stepper.param_groups]
            stepper.load_state_dict(held)
            for group, peak in zip(stepper.param_groups, peaks, strict=True):
                group["peak"] = peak
        self.step, self.seconds, self.tokens = state["step"], state["seconds"], state["tokens"]
        print(f"resumed at step {self.step}", flush=True)

    def update(self, batch: list[Row], evenness: float, factor: float) -> float:
        """One step at a share of the learning rates."""
        loss = batch_loss(self.model, batch, evenness)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for stepper in self.steppers:
            for group in stepper.param_groups:
                group["lr"] = group["peak"] * factor
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += sum(len(row.ids) for row in batch)
        return loss.item()


def follow(run: Run, plan: list[list[Row]], recipe: Recipe, watched: dict[str, list[Row]], options: Options) -> None:
    """Take the steps of the plan, reporting and keeping checkpoints on the way."""
    began, watched_at, running = time.perf_counter() - run.seconds, run.seconds, 0.0
    while run.step < len(plan):
        run.seconds = time.perf_counter() - began
        progress = max(run.step / len(plan), run.seconds / options.limit_s if options.limit_s else 0.0)
        if progress >= 1.0:
            break
        factor = rate(progress, run.step, recipe.warmup)
        loss = run.update(plan[run.step], recipe.evenness[run.step >= recipe.turn], factor)
        running = 0.97 * running + 0.03 * loss if running else loss
        if run.step % 50 == 0:
            speed = run.tokens / max(run.seconds, 1.0)
            print(f"step {run.step}/{len(plan)} {run.seconds:.0f}s loss {running:.3f} {speed:.0f} tokens/s", flush=True)
        if run.seconds - watched_at > options.watch_s:
            watched_at = run.seconds
            scores = {name: f"{exact(run.model, rows):.3f}" for name, rows in watched.items()}
            print(f"  {run.seconds:.0f}s {scores}", flush=True)
            run.keep(options.checkpoint)
    run.seconds = time.perf_counter() - began


def plans(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> tuple[list[list[Row]], int]:
    """The batches of both stages, one after the other, and the number of documents in them."""
    plan: list[list[Row]] = []
    for stage, (mix, end) in enumerate(((BROAD, recipe.turn), (REASONING, recipe.steps))):
        pairs = [(row.prompt, row.target) for row in documents(mix, recipe.seed + stage)]
        vocabulary.prove_prefix(tokenizer, pairs[:4000])
        made = batches(encode(pairs, tokenizer), recipe.tokens_per_batch, recipe.seed + stage)
        assert len(plan) + len(made) >= end, f"stage {stage} has only {len(made)} batches"
        plan += made[: end - len(plan)]
    return plan, sum(len(batch) for batch in plan)


def train(recipe: Recipe, options: Options) -> None:
    """Run the recipe and save the model."""
    torch.set_num_threads(2)
    tokenizer = vocabulary.learn(vocabulary_texts())
    plan, count = plans(recipe, tokenizer)
    watched = probes(tokenizer)
    model = new_model(recipe, tokenizer).train()
    run = Run(model, optimizers(model, recipe), json.dumps([recipe.__dict__, BROAD.__dict__, REASONING.__dict__]))
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{count} documents, {len(plan)} steps, {parameters} parameters", flush=True)
    run.restore(options.checkpoint)
    follow(run, plan, recipe, watched, options)
    scores = {name: exact(model, rows) for name, rows in watched.items()}
    print(f"end {run.seconds:.0f}s {scores}", flush=True)
    summary: dict[str, object] = {"seconds": round(run.seconds), "tokens": run.tokens, "documents": count}
    summary |= {"steps": run.step, "parameters": parameters, "recipe": recipe.__dict__}
    summary |= {"stages": [BROAD.__dict__, REASONING.__dict__]}
    save(model.eval(), tokenizer, options.output, summary)
    (options.checkpoint / "state.pt").unlink(missing_ok=True)


def main() -> None:
    """Read the options and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=MODEL)
    parser.add_argument("--checkpoint", type=Path, default=Path(tempfile.gettempdir()) / "world-checkpoint")
    parser.add_argument("--limit-s", type=float, default=0.0, help="stop, fully decayed, after so many seconds")
    parser.add_argument("--watch-s", type=float, default=240.0, help="seconds between checks and checkpoints")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="override a field of the recipe")
    parsed = parser.parse_args()
    recipe = Recipe()
    for pair in parsed.set:
        name, value = pair.split("=")
        recipe = replace(recipe, **{name: type(getattr(recipe, name))(value)})
    train(recipe, Options(parsed.output, parsed.checkpoint, parsed.limit_s, parsed.watch_s))


if __name__ == "__main__":
    main()
