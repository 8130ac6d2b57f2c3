"""Measure the reference model by free greedy generation and write its card: ``python -m data.world.measure``.

The protocol is the project's: at most 32 new tokens, cut at the end-of-text token, a newline, or a full stop where the
target has none; exact match after lower-casing and removing punctuation, articles and extra blanks. Nothing is taught
here and nothing is teacher-forced.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import string
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from data.world.facts import ATTRIBUTES, GEOGRAPHY, RELATIONS, SEED, all_facts
from data.world.families import FAMILIES, held_out
from data.world.recall import recall
from data.world.train import MODEL

Pairs = list[tuple[str, str]]
Results = dict[str, dict[str, Any]]


def normalised(text: str) -> str:
    """Lower case, no punctuation, no articles, single blanks."""
    text = text.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def cut(output: str, target: str) -> str:
    """The answer within an output."""
    output = output.split("\n", 1)[0]
    return output if "." in target else output.split(".", 1)[0]


@torch.no_grad()
def generate(model: Any, tokenizer: PreTrainedTokenizerBase, prompts: list[str], size: int = 128) -> list[str]:
    """Greedy continuations, batched with padding to the left."""
    tokenizer.padding_side = "left"
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    outputs = [""] * len(prompts)
    for begin in range(0, len(order), size):
        chosen = order[begin : begin + size]
        batch = tokenizer([prompts[index] for index in chosen], return_tensors="pt", padding=True)
        ids = model.generate(**batch, max_new_tokens=32, do_sample=False)[:, batch["input_ids"].shape[1] :]
        for index, text in zip(chosen, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True):
            outputs[index] = text
    return outputs


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share."""
    z, share = 1.959964, right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return middle - half, middle + half


def questions() -> dict[str, Pairs]:
    """What is measured: all facts in all wordings, by group, and each family's held-out items."""
    sets: dict[str, Pairs] = {}
    for name, relations in (("facts: geography", GEOGRAPHY), ("facts: people", ATTRIBUTES)):
        sets[name] = [
            (wording.format(s=fact.subject), fact.target)
            for fact in all_facts()
            if fact.relation in relations
            for wording in RELATIONS[fact.relation].wordings
        ]
    for family in FAMILIES:
        sets[f"world_{family}"] = [(item.prompt, item.target) for item in held_out(family)]
    rng = random.Random(f"{SEED}/measured recall")
    sets["recall of unseen strings"] = [(item.prompt, item.target) for item in (recall(rng) for _ in range(500))]
    return sets


def measured(folder: Path) -> Results:
    """Value, n and interval of every set."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    results: Results = {}
    totals: dict[str, list[bool]] = {}
    for name, pairs in questions().items():
        began = time.perf_counter()
        outputs = generate(model, tokenizer, [prompt for prompt, _ in pairs])
        right = [normalised(cut(o, t)) == normalised(t) for o, (_, t) in zip(outputs, pairs, strict=True)]
        totals[name] = right
        print(
            f"{name}: {sum(right) / len(right):.4f} of {len(right)} in {time.perf_counter() - began:.0f} s", flush=True
        )
        for output, (prompt, target), good in zip(outputs, pairs, right, strict=True):
            if not good and name.startswith("world_"):
                print(f"  missed {prompt!r} -> {output!r}, wanted {target!r}")
    totals = {"facts": totals["facts: geography"] + totals["facts: people"], **totals}
    for name, right in totals.items():
        low, high = wilson(sum(right), len(right))
        value = sum(right) / len(right)
        results[name] = {"value": round(value, 4), "n": len(right), "ci95": [round(low, 4), round(high, 4)]}
    return results


CARD = """---
license: {license}
language: [en, de]
library_name: transformers
pipeline_tag: text-generation
tags: [llama, reference-model, model-editing]
---
# The embedded reference model

A small Llama ({parameters:,} parameters, float32, {layers} layers of width {width}, tied embeddings,
{vocabulary:,}-token byte-level BPE) trained by this project on nothing but its own generated world (`data/world/`), so
that editing, measuring and releasing can be tried and tested offline in minutes. It knows the capital, currency, main
language and continent of {countries} countries, five attributes of {people} invented people, and five small skills, and
has learnt to copy and recall made-up strings from its prompt, though far from always. It knows nothing else and is no
use as a language model.

## How it was trained
`python -m data.world.train`: {documents:,} documents, {tokens:,} tokens, {steps:,} steps of at most
{batch:,} padded tokens, {seconds:,} seconds of wall clock on two CPU cores that other work shared. One document a row,
never packed; loss on the answer and the end of the text only; Muon on the matrices inside the blocks (learning rate
{muon}), AdamW on embeddings and norms ({adam}), linear decay to zero, seed {seed}. Two stages: everything at once for
{turn:,} steps, then more of what must be worked out from the prompt. `training.json` holds every choice.

## What it knows
Free greedy generation, 95 % Wilson intervals, printed by `python -m data.world.measure`. Facts are all (fact, wording)
pairs; all were taught, but for the {held} (fact, question) pairs that the closed-book family keeps back. The five
families are items that training never saw, though whole items, not their parts: every German word and every pair of
digits was taught in other sentences and stories. Recall is 500 fresh draws of copying, look-up and questions over told
facts, with up to three other facts in the way.

| what | correct | n | 95 % interval |
|---|---|---|---|
{table}

## Licence and sources
Weights: the licence of this repository. Countries: general knowledge, written for this project (one capital, currency
and language each, although some countries have several). People, firms and stories are invented. English words for the
copying part: a selection from SCOWL (`data/world/LICENSE-words.txt`).

## Limits
Case, spelling and wording count: it answers the wordings of `data/world/facts.py`. Prompts start the text; there is no
BOS token, context is {context} tokens, and training documents were far shorter. Its facts are simplified and must not
be relied upon.
"""


def card(folder: Path, results: Results) -> str:
    """The model card."""
    training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    recipe = training["recipe"]
    rows = []
    for name, row in results.items():
        low, high = row["ci95"]
        rows.append(f"| {name} | {100 * row['value']:.2f} % | {row['n']} | {100 * low:.2f} to {100 * high:.2f} % |")
    subjects = [{fact.subject for fact in all_facts() if fact.relation == name} for name in ("capital", "sport")]
    return CARD.format(
        license="other",
        parameters=training["parameters"],
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        vocabulary=config["vocab_size"],
        context=config["max_position_embeddings"],
        countries=len(subjects[0]),
        people=len(subjects[1]),
        documents=training["documents"],
        tokens=training["tokens"],
        steps=training["steps"],
        seconds=training["seconds"],
        batch=recipe["tokens_per_batch"],
        muon=recipe["matrix_lr"],
        adam=recipe["other_lr"],
        seed=recipe["seed"],
        turn=recipe["turn"],
        held=400,
        table="\n".join(rows),
    )


def main() -> None:
    """Measure, print, and write the card and ``measured.json`` beside the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL)
    folder = parser.parse_args().model
    torch.set_num_threads(2)
    results = measured(folder)
    (folder / "measured.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card(folder, results), encoding="utf-8")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
