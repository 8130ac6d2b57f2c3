"""Settings as a Python program gives them: a mapping, a file, or settings that were read before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from factpatch.errors import InputError
from factpatch.settings.config import Settings, build_settings, load_settings, read_sections, with_overrides

NOTHING_KEPT: dict[str, Any] = {  # a library writes no file that nobody asked for
    "trunk.folder": None,
    "evaluation.cache": None,
    "localization.cache": None,
    "judge.cache": None,
    "capability.cache": None,
}


def settings_from(given: Settings | Mapping[str, Any] | str | Path | None) -> Settings:
    """The settings that are meant; nothing is kept on disk unless they name a folder for it.

    A mapping holds sections (`{"training": {"epochs": 8}}`), dotted names (`{"training.epochs": 8}`) or both. A path is
    that of a file such as `params.yaml`. Settings that were read before are taken as they are, with their folders.
    """
    if isinstance(given, Settings):
        return given
    if isinstance(given, (str, Path)):
        named = _dotted(read_sections(Path(given)))
        return load_settings(given, {name: value for name, value in NOTHING_KEPT.items() if name not in named})
    if given is not None and not isinstance(given, Mapping):
        raise InputError(f"settings are {given!r}; give a dict, the path of a YAML file, or Settings")
    try:
        return build_settings(with_overrides({}, NOTHING_KEPT | _dotted(given or {})))
    except InputError as error:
        raise InputError(f"settings: {error}") from error


def _dotted(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of all sections by dotted name; what is no section stays under its own."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and "." not in str(name):
            found |= {f"{name}.{key}": inner for key, inner in value.items()}
        elif value is not None or "." in str(name):  # a section without keys says nothing
            found[str(name)] = value
    return found
