"""Names of registered models: which are allowed, and the one made from a project's folder."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

UNFIT = "/:'\"\\"  # what MLflow takes in no name of a model, or not where it looks for one


def project_name(folder: Path) -> str:
    """What the folder is called, as a name of a model: anything but letters, digits, blanks, `.`, `_` and `-` becomes
    `-`. `factpatch` where nothing is left, as of `/`."""
    name = unicodedata.normalize("NFC", Path(os.path.abspath(folder)).name)
    return re.sub(r"[^\w .-]+", "-", name).strip(" .-") or "factpatch"


def fits(name: str) -> bool:
    """Whether a model may be called so."""
    return bool(name.strip(" .")) and name.isprintable() and not set(name) & set(UNFIT)
