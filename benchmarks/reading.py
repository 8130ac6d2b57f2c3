"""What reading edits costs by format, and what validating them costs beside that, against JSON Lines.

    python -m benchmarks.reading [--rows 100000] [--validate]

The same rows (a prompt, a target, two paraphrases, with letters beyond ASCII) are written in every format and read in
processes of their own; with `--validate`, `factpatch validate` also runs on JSON Lines and on CSV with semicolons in
Windows-1252. Seconds are processor time, as other work may share the machine; memory is the peak of the process. Of
three runs (one of validations) the least counts.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import openpyxl
import pyarrow
import pyarrow.parquet

from factpatch.edits.formats import find_layout, read_file

Cost = tuple[float, float]  # seconds and bytes
RUNS = 3
ENDINGS = ("jsonl", "csv", "utf8.csv", "json", "jsonl.gz", "parquet", "xlsx")


def make_rows(count: int) -> Iterator[dict[str, str | list[str]]]:
    for number in range(count):
        yield {
            "prompt": f"Die Hauptstadt der Region Nummer {number} von Österreich heißt",
            "target": f"Köln {number % 977}",
            "paraphrases": [
                f"In Österreichs Region {number} ist die größte Stadt",
                f"Wie heißt die Hauptstadt der {number}. Region?",
            ],
        }


def write_files(folder: Path, count: int) -> None:
    """The rows in every format."""
    rows = list(make_rows(count))
    table = [[*rows[0]], *([*map(_cell, row.values())] for row in rows)]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    paths = [folder / f"edits.{ending}" for ending in ENDINGS]
    paths[0].write_text(lines, encoding="utf-8")
    for path, encoding, separator in ((paths[1], "cp1252", ";"), (paths[2], "utf-8", ",")):
        with path.open("w", encoding=encoding, newline="") as file:
            csv.writer(file, delimiter=separator).writerows(table)
    paths[3].write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    paths[4].write_bytes(gzip.compress(lines.encode()))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), paths[5])
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("edits")
    for cells in table:
        sheet.append(cells)
    book.save(paths[6])


def _cell(value: str | list[str]) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def read_alone(path: Path) -> Cost:
    """What finding the layout and reading every row costs."""
    start = time.process_time()
    for _ in read_file(path, find_layout(path)):
        pass
    seconds = time.process_time() - start
    status = Path("/proc/self/status").read_text(encoding="ascii")  # factpatch.preflight.machine would load torch
    return seconds, next(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def read_apart(path: Path) -> Cost:
    command = [sys.executable, "-m", "benchmarks.reading", "--read", str(path)]
    runs = [json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(RUNS)]
    seconds, memory = (min(one) for one in zip(*runs, strict=True))
    return seconds, memory


def validate_apart(path: Path) -> Cost:
    """What `factpatch validate` costs, with the processes that it starts."""
    command = [sys.executable, "-m", "flows", "validate", str(path), "--output", f"{path}.out"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"'{' '.join(command)}' ended with {os.waitstatus_to_exitcode(status)}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def print_costs(title: str, count: int, costs: dict[Path, Cost]) -> None:
    first_seconds, first_memory = next(iter(costs.values()))
    print(f"\n| {title} | seconds | rows/s | memory | seconds, memory against JSON Lines |\n|---|---|---|---|---|")
    for path, (seconds, memory) in costs.items():
        print(
            f"| {find_layout(path)} | {seconds:.2f} | {count / seconds:,.0f} | {memory / 2**20:.0f} MB | "
            f"{seconds / first_seconds:.2f}x, {memory / first_memory:.2f}x |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write:
        write_files(args.write, args.rows)
        return
    if args.read:
        print(json.dumps(read_alone(args.read)))
        return
    with tempfile.TemporaryDirectory() as folder:
        # in a process of its own, as the peak of this one would count for those that it starts
        again = [sys.executable, "-m", "benchmarks.reading", "--rows", str(args.rows), "--write", folder]
        subprocess.run(again, check=True)
        paths = [Path(folder) / f"edits.{ending}" for ending in ENDINGS]
        print_costs("reading", args.rows, {path: read_apart(path) for path in paths})
        if args.validate:
            print_costs("validating", args.rows, {path: validate_apart(path) for path in paths[:2]})


if __name__ == "__main__":
    main()
