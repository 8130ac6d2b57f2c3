"""Runs of `factpatch edit` that are killed: a process that loads the libraries once and forks a child for each run.

Prints one JSON line: what each chain of kills left behind, after a last run with --resume. Another run is killed and
left so.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

import tasks.edit  # noqa: F401  (loaded once, before the forks)
from factpatch import editing  # noqa: F401
from factpatch.files import digest_file
from factpatch.patches import certificate, patch  # noqa: F401
from factpatch.preflight import machine
from factpatch.training_data import protected_prompts  # noqa: F401
from flows.__main__ import main

EVENTS = {"open", "os.chmod", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree", "tempfile.mkdtemp"}


def run(arguments, kill_at=None, limit=None, delay=None):
    """Exit status of one run in a child: killed at the n-th change of a file, where one outgrows `limit` bytes, after
    `delay` seconds, or not at all. Also how many changes it made."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            silence()
            count = watch(kill_at)
            if limit:
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # kills in the middle of a write
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            code = main(["edit", *arguments])
            os.write(writing, str(len(count)).encode())
        finally:
            os._exit(code)
    os.close(writing)
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        return status, int(pipe.read() or 0)


def silence():
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(null, descriptor)


def watch(kill_at):
    """Count what changes files where the run stands, and end the process, with no chance to tidy up, at the n-th."""
    here, count = str(Path.cwd()), []

    def hook(event, values):
        if event not in EVENTS or not str(values[0]).startswith((here, "out", ".cache")):
            return
        if event == "open" and not (values[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            return
        count.append(event)
        if len(count) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return count


def outcome(folder):
    """What must not depend on kills, and what must not stay."""
    edit = json.loads((folder / "out" / "edit.json").read_text())
    for varying in ("seconds", "preflight", "measured"):
        del edit[varying]
    files = [path for path in folder.rglob("*") if path.name.endswith(".partial") or path.name.startswith(".tmp")]
    tensors = [digest_file(folder / "out" / "patch" / name) for name in ("patch.safetensors", "undo.safetensors")]
    litter = sorted(str(path.relative_to(folder)) for path in files) + [
        path.name for path in (folder / "out").glob("checkpoint*")
    ]
    return {"edit": edit, "tensors": tensors, "litter": litter}


def go(base, name, template):
    """Stand in a fresh folder with the accepted edits in it."""
    folder = base / name
    shutil.copytree(template, folder)
    os.chdir(folder)
    return folder


def measure(base, template, arguments, chains):
    """An uninterrupted run, one that leaves a checkpoint, then chains of one to three kills."""
    folder = go(base, "whole", template)
    start = time.monotonic()
    status, changes = run(arguments)
    seconds = time.monotonic() - start
    assert status == 0, status
    found = {"whole": outcome(folder), "changes": changes, "chains": []}
    leave_checkpoint(base, template, arguments, changes)
    draw = random.Random(3)
    for number in range(chains):
        folder = go(base, f"chain-{number}", template)
        kills = []
        for _ in range(draw.randint(1, 3)):
            manner = draw.choice(("kill_at", "kill_at", "delay", "limit"))
            value = {
                "kill_at": draw.randint(1, changes),
                "delay": draw.uniform(0.1, seconds),
                "limit": draw.choice((3000, 9000, 20_000)),
            }[manner]
            status, _ = run([*arguments, "--resume"] if kills else arguments, **{manner: value})
            kills.append((manner, value, os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)))
        status, _ = run([*arguments, "--resume"])
        found["chains"].append({"kills": kills, "status": status, **(outcome(folder) if status == 0 else {})})
    print(json.dumps(found))


def leave_checkpoint(base, template, arguments, changes):
    """A run of so many changes of files, killed in the middle of its last third."""
    folder = go(base, "killed", template)
    status, _ = run(arguments, kill_at=changes * 2 // 3)
    assert os.WIFSIGNALED(status), status
    assert (folder / "out" / "checkpoint.safetensors").exists()


if __name__ == "__main__":
    torch.set_num_threads(1)
    machine.MEASURING_SECONDS = 0.01  # as no test waits for what an estimate says
    base, template, chains, *arguments = sys.argv[1:]
    measure(Path(base), Path(template), arguments, int(chains))
