"""What becomes of errors on the command line: one line, a code, and nothing left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from factpatch.errors import InputError, RefusedError
from flows.console import exit_code


def raising(error: BaseException):
    def work() -> int:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (InputError("no such thing"), 2, "error: no such thing"),
        (RefusedError("a gate said no"), 1, "error: a gate said no"),
        (
            PermissionError(13, "Permission denied", "ro/.a.json.abcdefgh.partial"),
            2,
            "error: 'ro' cannot be used (Perm",
        ),
        (OSError(28, "No space left on device", "out/a.json"), 2, "error: 'out/a.json' cannot be used (No space"),
        (KeyError("k"), 1, "error: KeyError: 'k' (FACTPATCH_TRACEBACK=1 shows where)"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_an_error_is_one_line_and_a_code(error, code, words, monkeypatch, capsys):
    monkeypatch.delenv("FACTPATCH_TRACEBACK", raising=False)
    assert exit_code(raising(error)) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(words)


def test_a_supervisor_s_signal_ends_a_verb_as_an_interrupt_does():
    code = (
        "import time\nfrom flows.console import exit_code\n"
        "def work():\n    print('ready', flush=True)\n    time.sleep(60)\n    return 0\n"
        "raise SystemExit(exit_code(work))"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as run:
        assert run.stdout.readline() == "ready\n"
        os.kill(run.pid, signal.SIGTERM)
        _, told = run.communicate(timeout=30)
    assert (run.returncode, told) == (130, "stopped\n")
