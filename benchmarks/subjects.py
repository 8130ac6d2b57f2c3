"""How often the subject that is found in a prompt is the one that its row names.

    python -m benchmarks.subjects zsre_3k.json counterfact_3k.json --first 1000

Of each file the rows from `--first` on are looked at: all together, and so many at a time as a small edit set has; and
the same with every prompt in lower case.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from factpatch.edits.loading import read_rows
from factpatch.edits.subjects import find_subjects

AT_ONCE = (None, 200, 30, 10, 1)  # prompts that are seen together; None: all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("edits", nargs="+", help="files of edits that name their subjects")
    parser.add_argument("--first", type=int, default=0, help="row to begin with")
    args = parser.parse_args()
    print("file                 letters  at once    n    exact  overlapping  none")
    for path in args.edits:
        rows = [row.values for row in read_rows(path)][args.first :]
        named = [(row["prompt"], row["subject"]) for row in rows if row.get("subject", "") in row.get("prompt", "")]
        lower = [(prompt.lower(), subject.lower()) for prompt, subject in named]
        for letters, pairs in (("own", named), ("lower", lower)):
            for size in AT_ONCE:
                print(f"{path[-20:]:<20} {letters:<7} {size or 'all':>8} {_line(pairs, size or len(pairs))}")


def _line(named: Sequence[tuple[str, str]], size: int) -> str:
    pairs = []
    for start in range(0, len(named), size):
        part = named[start : start + size]
        found = find_subjects([prompt for prompt, _ in part])
        pairs += [(subject, one) for (_, subject), one in zip(part, found, strict=True)]
    exact = sum(subject == one for subject, one in pairs)
    near = sum(one is not None and (one in subject or subject in one) for subject, one in pairs)
    none = sum(one is None for _, one in pairs)
    return f"{len(pairs):>5}  {exact / len(pairs):6.1%}  {near / len(pairs):10.1%}  {none:>4}"


if __name__ == "__main__":
    main()
