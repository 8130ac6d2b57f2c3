"""What continuous integration does with edits: `python -m flows.ci check` on a pull request, `release` on merge.

Both leave `summary.md` in the output folder, for a comment or a page, and return the exit codes of the command line.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from factpatch.edits.folder import fact, read_ledger
from factpatch.errors import FactpatchError, InputError
from factpatch.files import output_folder, read_json, write_text
from factpatch.settings.config import Settings, load_settings
from flows.__main__ import main as command
from flows.console import check_prefect, exit_code
from flows.preview import reading_lines

DEPLOYMENT = "release/scheduled"
FINDINGS_SHOWN = 20  # findings in a summary


def check(output: str) -> int:
    """Strict validation of the ledger; 1 if anything was found."""
    code, told = _call("validate", "--strict", "--output", output)
    lines = [f"## Edits: {'every row passes' if code == 0 else 'not as they should be'}", ""]
    result = Path(output) / "validate.json"
    if code == 2 or not result.exists():
        return _leave(output, [*lines, *_block(told)], code)
    found = read_json(result)
    names = ("total", "accepted", "quarantined", "repaired", "inactive")
    lines += [
        f"| {' | '.join(names)} |",
        f"|{'---|' * len(names)}",
        f"| {' | '.join(str(found[n]) for n in names)} |",
        "",
    ]
    lines += [f"- {_code(line)}" for line in reading_lines(found["read_as"])]
    for finding in found["findings"][:FINDINGS_SHOWN]:
        row = f"{finding['file']} row {finding['row']}: {finding['prompt']}"
        lines.append(f"- {finding['severity']}, {finding['check']}: {_code(row)}")
    if len(found["findings"]) > FINDINGS_SHOWN:
        lines.append(f"- and {len(found['findings']) - FINDINGS_SHOWN} more")
    return _leave(output, [*lines, *_settled(load_settings())], code)


def release(output: str) -> int:
    """Release what is pending: by the deployment where a Prefect server is named, else here."""
    if os.environ.get("PREFECT_API_URL"):
        check_prefect()
        from prefect.client.schemas import FlowRun
        from prefect.deployments import run_deployment
        from prefect.exceptions import ObjectNotFound

        from flows.release import REFUSED

        try:
            run = cast(FlowRun, run_deployment(DEPLOYMENT))
        except ObjectNotFound as error:
            told = f"Prefect has no deployment '{DEPLOYMENT}'; make it with 'prefect deploy --all'"
            raise InputError(told) from error
        state = run.state
        done = state is not None and state.is_completed() and state.name != REFUSED
        told = f"{run.name}: {state.name if state else 'no state'} {(state and state.message) or ''}"
        return _leave(output, [f"## Release by {DEPLOYMENT}", "", *_block(told)], 0 if done else 1)
    code, told = _call("run", "--pending", "--output", output)
    return _leave(output, ["## Release", "", *_block(told)], code)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of the step."""
    parser = argparse.ArgumentParser(prog="python -m flows.ci", description="Check or release the ledger.")
    parser.add_argument("step", choices=["check", "release"])
    parser.add_argument("--output", metavar="DIR", default="runs/ci", help="where results go (default: runs/ci)")
    args = parser.parse_args(arguments)
    for name in ("PREFECT_API_URL", "PREFECT_API_KEY", "MLFLOW_TRACKING_URI"):
        if not os.environ.get(name):  # a secret that is not set arrives as empty text
            os.environ.pop(name, None)

    def work() -> int:
        output_folder(args.output)
        try:
            return {"check": check, "release": release}[args.step](args.output)
        except FactpatchError as error:
            print(f"error: {error}", file=sys.stderr)
            return _leave(args.output, ["## Edits: nothing was done", "", *_block(f"error: {error}")], error.exit_code)

    return exit_code(work)


def _call(*arguments: str) -> tuple[int, str]:
    """A verb's exit code and all it printed, which is printed here too."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        code = command(arguments)
    print(told.getvalue(), end="")
    return code, told.getvalue()


def _settled(settings: Settings) -> list[str]:
    """How many facts the ledger holds, and which earlier ones later files have superseded or withdrawn."""
    entries = read_ledger(settings.edits.path, columns=settings.edits.columns)
    ended = [entry for entry in entries if entry.state in ("superseded", "reverted")]
    active = sum(entry.state == "active" for entry in entries)
    lines = ["", f"{active} facts in force; {len(ended)} superseded or reverted."]
    for entry in ended[-FINDINGS_SHOWN:]:
        by = f" by {entry.by.where}" if entry.by else ""
        lines.append(f"- {entry.state}{by}: {_code(f'{entry.row.where}: {fact(entry)[0]}')}")
    return lines


def _leave(output: str, lines: Sequence[str], code: int) -> int:
    write_text(output_folder(output) / "summary.md", "\n".join(lines) + "\n")
    return code


def _code(text: str) -> str:
    """Text from an edit as code in one line, so that it is never read as markup."""
    line = " ".join(text.split()).replace("`", "'").encode("utf-8", "backslashreplace").decode("utf-8")
    return f"`{line}`"


def _block(text: str) -> list[str]:
    return ["~~~text", *text.replace("~~~", "---").splitlines(), "~~~"]


if __name__ == "__main__":
    sys.exit(main())
