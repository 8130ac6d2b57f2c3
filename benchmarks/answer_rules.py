"""By how much figures move between two rules of comparing answers, on the very same texts.

    python -m benchmarks.answer_rules runs/demo/evaluate.json …

Reads what models said (`evaluate.json` of any run) and counts it under the default rule, under version 1 of it (cut at
the first "." unless the target holds one, then compared as the paper does) and under the paper's. Then it prints every
answer that counts otherwise under the default rule than under version 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from factpatch.evaluation.answers import cut, same
from factpatch.files import read_json

RULES = ("default", "version 1", "paper")
MOMENTS = {"before": "before", "output": "after"}


def answer(rule: str, output: str, expected: str) -> str:
    """What of a text is the answer."""
    if rule == "version 1" and "." in expected:
        return output.partition("\n")[0].strip()
    return cut(output, expected, "default" if rule == "default" else "paper")


def equal(rule: str, left: str, right: str) -> bool:
    """Are two answers one?"""
    return same(left, right, "default" if rule == "default" else "paper")


def verdicts(edits: list[Mapping[str, Any]]) -> Iterator[tuple[str, str, str, str, dict[str, bool]]]:
    """The figure, the prompt, both texts that are compared, and whether they are one by each rule."""
    for edit in edits:
        asked = [("reliability", edit), *(("generalization", one) for one in edit["paraphrases"])]
        for figure, one in asked:
            for moment in ("before", "output"):
                if one[moment] is not None:
                    target, said = edit["target"], one[moment]
                    found = {rule: equal(rule, answer(rule, said, target), target) for rule in RULES}
                    yield f"{figure} {MOMENTS[moment]}", one["prompt"], said, target, found
        for one in edit["locality"]:
            if one["before"] is not None:
                after, before, expected = one["output"], one["before"], one["target"]
                found = {
                    rule: equal(rule, answer(rule, after, expected), answer(rule, before, expected)) for rule in RULES
                }
                yield "locality", one["prompt"], after, before, found


def main() -> None:
    """Print a table of shares, then what counts otherwise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluations", nargs="+", type=Path)
    for path in parser.parse_args().evaluations:
        rows = list(verdicts(read_json(path)["edits"]))
        print(f"\n{path}\n| figure | n | {' | '.join(RULES)} | moved |\n|---|---|{'---|' * (len(RULES) + 1)}")
        moved = [row for row in rows if row[4]["default"] != row[4]["version 1"]]
        for figure in dict.fromkeys(row[0] for row in rows):
            found = [row[4] for row in rows if row[0] == figure]
            shares = " | ".join(f"{sum(one[rule] for one in found) / len(found):.1%}" for rule in RULES)
            print(f"| {figure} | {len(found)} | {shares} | {sum(row[0] == figure for row in moved)} |")
        for figure, prompt, left, other, found in moved:
            print(f"{figure}: {prompt!r} says {left!r}, compared with {other!r}: {found}")


if __name__ == "__main__":
    main()
