"""Write the demo edits, the facts to protect and the capability families: ``python -m data.world.generate``.

With ``--check`` nothing is written; the command fails and names the files that differ from what it would write. The
last line it prints is the digest of the training stream and of the tokenizer's texts, which live only in memory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from data.world.corpus import BROAD, REASONING, documents, vocabulary_texts
from data.world.edits import demo_edits
from data.world.facts import SEED
from data.world.families import FAMILIES, held_out
from data.world.protected import protected

DATA = Path(__file__).parent.parent

TASK = """task: world_{family}
dataset_path: json
dataset_kwargs:
  data_files:
    test: data/capability/world_{family}.jsonl
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{target}}}}"
target_delimiter: " "
num_fewshot: 0
generation_kwargs:
  until: ["\\n", "<eos>"]
  max_gen_toks: 32
  do_sample: false
filter_list:
  - name: trimmed
    filter:
      - function: remove_whitespace
      - function: take_first
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    ignore_case: true
    ignore_punctuation: true
metadata:
  version: 1.0
"""


def lines(rows: Iterable[dict[str, object]]) -> str:
    """JSON Lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def contents() -> dict[Path, str]:
    """Every generated file and its text."""
    files = {DATA / "edits" / "0001-demo.jsonl": lines(demo_edits()), DATA / "protected.jsonl": lines(protected())}
    for family in FAMILIES:
        rows: list[dict[str, object]] = [{"prompt": item.prompt, "target": item.target} for item in held_out(family)]
        files[DATA / "capability" / f"world_{family}.jsonl"] = lines(rows)
        files[DATA / "capability" / f"world_{family}.yaml"] = TASK.format(family=family)
    return files


def digest(texts: Iterable[str]) -> str:
    """SHA-256 over texts, one a line."""
    running = hashlib.sha256()
    for text in texts:
        running.update(text.encode() + b"\n")
    return running.hexdigest()


def main() -> int:
    """Write or check the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the files on disk and write nothing")
    check = parser.parse_args().check
    stale = []
    for path, text in contents().items():
        name = path.relative_to(DATA.parent).as_posix()
        if check:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(name)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        print(f"{name}: {text.count(chr(10))} lines, sha256 {hashlib.sha256(text.encode()).hexdigest()[:12]}")
    if stale:
        print(f"differ from what the generator writes: {', '.join(stale)}; run python -m data.world.generate")
        return 1
    rows = [*documents(BROAD, SEED), *documents(REASONING, SEED + 1)]
    stream = digest(f"{row.kind}\t{row.prompt}\t{row.target}" for row in rows)
    print(f"stream sha256 {stream[:16]}, tokenizer texts sha256 {digest(vocabulary_texts())[:16]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
