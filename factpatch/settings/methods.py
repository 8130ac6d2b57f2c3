"""Which training methods there are, and their settings: those of factpatch, and those that other packages bring by an
entry point."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, is_dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from factpatch.errors import InputError
from factpatch.settings.build import build, unknown_key
from factpatch.settings.training import TrainingSettings

GROUP = "factpatch.methods"  # of entry points, each named as `training.method` says it and leading to a class
BUILT_IN = (
    EntryPoint("breadth-first", "factpatch.methods.breadth_first.method:BreadthFirst", GROUP),
    EntryPoint("depth-first", "factpatch.methods.depth_first.method:DepthFirst", GROUP),
    EntryPoint("crispedit", "factpatch.methods.crispedit.method:CrispEdit", GROUP),
    EntryPoint("ultraedit", "factpatch.methods.ultraedit.method:UltraEdit", GROUP),
    EntryPoint("memit", "factpatch.methods.memit.method:Memit", GROUP),
    EntryPoint("alphaedit", "factpatch.methods.alphaedit.method:AlphaEdit", GROUP),
)


def method_entries() -> dict[str, EntryPoint]:
    """Every method's entry point by its name; nothing is imported. InputError where two packages claim one name."""
    found = [*BUILT_IN, *entry_points(group=GROUP)]
    twice = [name for name, count in Counter(entry.name for entry in found).items() if count > 1]
    if twice:
        values = " and ".join(sorted(entry.value for entry in found if entry.name == twice[0]))
        raise InputError(f"training method '{twice[0]}' is brought by {values}; uninstall one of them")
    return {entry.name: entry for entry in found}


def method_entry(name: str) -> EntryPoint:
    """The entry point of this method; InputError if no package brings it."""
    known = method_entries()
    if name not in known:
        raise InputError(f"training.method is {name!r}; choose one of {', '.join(known)}")
    return known[name]


def load_method(name: str) -> Any:
    """What the entry point of this method makes; InputError where it cannot be loaded."""
    entry = method_entry(name)
    try:
        return entry.load()()
    except Exception as error:  # whatever another package raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"training method '{name}' ({entry.value}) cannot be loaded: {reason}") from error


def own_settings(settings_type: type[Any], training: TrainingSettings) -> Any:
    """A method's settings: fields that `training` has too are taken from there, the others from `training.options`.

    InputError, with the names there are, for options that the method has not and values that do not fit.
    """
    shared = {field.name for field in fields(TrainingSettings)}
    names = [field.name for field in fields(settings_type) if field.name not in shared]
    for key in training.options:
        if not names:
            raise InputError(f"training.options has '{key}', but training method '{training.method}' has no options")
        if key not in names:
            raise InputError(unknown_key("training.options.", key, names))
    values = {field.name: getattr(training, field.name) for field in fields(settings_type) if field.name in shared}
    if not training.options:
        return settings_type(**values)
    return build(settings_type, values | training.options, "training.options.")


def check_method(training: TrainingSettings) -> None:
    """InputError where no package brings the configured method, or it has other options than those given.

    A method's own code is imported only where there are options: looking for it alone takes milliseconds.
    """
    method_entry(training.method)
    if training.options:
        settings_type = getattr(load_method(training.method), "settings_type", None)
        if isinstance(settings_type, type) and is_dataclass(settings_type):  # else `find_method` tells what is wrong
            own_settings(settings_type, training)
