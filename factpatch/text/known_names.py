"""Well-known names of many kinds, which come along in names.txt."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files


@cache
def known_names() -> dict[str, str]:
    """The names, each with its kind."""
    lines = files("factpatch.text").joinpath("names.txt").read_text(encoding="utf-8").splitlines()
    kinds = (line.partition(": ") for line in lines if not line.startswith("#"))
    return {name: kind for kind, _, names in reversed(list(kinds)) for name in names.split(", ")}


@cache
def in_any_case() -> re.Pattern[str]:
    """Finds them as whole words, however they are written; the longest that begins at a place."""
    longest = sorted(known_names(), key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest))})(?!\w)", re.IGNORECASE)
