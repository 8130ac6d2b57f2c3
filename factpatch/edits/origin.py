"""Where a ledger lies, remembered with each version, so that no release takes another ledger's champion for its own."""

from __future__ import annotations

import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Origin:
    """The ledger that a version was released from.

    Attributes:
        place: the machine and the path there, or the name of a hub data set.
        path: inside its git repository; None outside git.
        revision: the last commit that changed it; None outside git, and where rows were not committed.
    """

    place: str
    path: str | None = None
    revision: str | None = None


def place_of(source: str) -> str:
    """Where a file, folder or hub data set lies."""
    path = Path(source)
    return f"{socket.gethostname()}:{path.resolve()}" if path.exists() else source


def path_in_repository(path: Path) -> str | None:
    """The path below the top of the git repository that holds it; None outside git."""
    prefix = git(path.absolute().parent, "rev-parse", "--show-prefix")
    return None if prefix is None else prefix + path.absolute().name


def continues(source: str, then: Origin) -> bool:
    """Whether this is the ledger of then: it lies in the same place, or in a checkout that has the commit of then, at
    the same path. Its rows may say so where this does not."""
    if place_of(source) == then.place:
        return True
    path = Path(source)
    if then.revision is None or path_in_repository(path) != then.path:
        return False
    return git(path.absolute().parent, "merge-base", "--is-ancestor", then.revision, "HEAD") is not None


def git(folder: Path, *arguments: str) -> str | None:
    """What git prints, or None where there is no git, no repository or no commit."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
