"""Which training methods there are: those of factpatch, and those that other packages bring by an entry point."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import EntryPoint, entry_points

from factpatch.errors import InputError

GROUP = "factpatch.methods"  # of entry points, each named as `training.method` says it and leading to a class
BUILT_IN = (
    EntryPoint("breadth-first", "factpatch.methods.breadth_first.method:BreadthFirst", GROUP),
    EntryPoint("depth-first", "factpatch.methods.depth_first.method:DepthFirst", GROUP),
    EntryPoint("crispedit", "factpatch.methods.crispedit.method:CrispEdit", GROUP),
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
