"""Processor seconds and peak memory of `factpatch validate` on many rows, in a process of its own.

    python -m benchmarks.validation [--rows 100000]

Each row has a prompt, a target, two paraphrases, a locality probe and an id; one in a hundred repeats or contradicts an
earlier one, and one in fifty has a fault of another kind. Seconds are the processor's, so that other work on the
machine counts little; set OMP_NUM_THREADS and RAYON_NUM_THREADS to 1 for those of one core.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from factpatch.files import write_jsonl

SYLLABLES = "ba ce di fo gu la me ni po ru sta ver win xan yor zel".split()
RELATIONS = ("The capital of {} is", "{} was founded by", "The main language of {} is", "The currency of {} is")
OTHER_WORDS = ("Question: {} What is asked here?\nAnswer:", "It is widely known today that {}")


def edit_rows(count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """So many rows about made-up names."""
    draw = random.Random(seed)

    def name() -> str:
        return "".join(draw.choices(SYLLABLES, k=draw.randint(2, 4))).title()

    rows: list[dict[str, Any]] = []
    for number in range(count):
        prompt = draw.choice(RELATIONS).format(f"{name()} {name()}")
        row = {
            "id": f"edit-{number}",
            "prompt": prompt,
            "target": f"{name()} {name()}",
            "paraphrases": [words.format(prompt) for words in OTHER_WORDS],
            "locality": [{"prompt": draw.choice(RELATIONS).format(name()), "target": name()}],
        }
        if rows and number % 100 == 0:
            earlier = draw.choice(rows)
            row |= {"prompt": earlier["prompt"], "target": draw.choice((earlier["target"], name()))}
        elif number % 50 == 0:
            row |= draw.choice(
                (
                    {"target": prompt.split()[-2]},
                    {"target": row["target"] + " "},
                    {"target_old": [row["target"]]},
                    {"paraphrases": [prompt]},
                    {"id": "edit-1"},
                    {"target": " ".join([row["target"]] * 12)},
                )
            )
        if number % 97 == 0:
            rows.append(row)
        yield row


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        edits = write_jsonl(Path(folder) / "edits.jsonl", edit_rows(args.rows))
        command = [sys.executable, "-m", "flows", "validate", str(edits), "--output", f"{folder}/out"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found = json.loads((Path(folder) / "out" / "validate.json").read_text(encoding="utf-8"))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{args.rows} rows, {found['accepted']} accepted, {found['quarantined']} quarantined, "
        f"{found['repaired']} repaired: {used.ru_utime + used.ru_stime:.0f} s, {used.ru_maxrss / 1024:.0f} MB"
    )


if __name__ == "__main__":
    main()
