"""The last files of a release, written together: `release.json`, and the page and the card that say the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from factpatch.files import write_json, write_text
from factpatch.report import read_evidence, render_card, render_report

RELEASE_FILES = ("report.html", "release.json")
CARD = 5000  # characters of a version's description that every store takes


def write_release(folder: Path, release: Mapping[str, Any]) -> str:
    """Write `RELEASE_FILES` beside what the steps left in an output folder; the card, for the version's description."""
    pages = read_evidence(folder) | {"release": release}
    write_text(folder / "report.html", render_report(pages))
    write_json(folder / "release.json", release)
    return render_card(pages, CARD)
