"""Dotted paths into a row: what stands at one, what no path reaches, and the row once for every item of a list."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from factpatch.errors import InputError


def find(value: Any, path: str) -> Any:
    """What stands at a path, such as `answers.0.text`; None if nothing does.

    In a list a number names an item, and any other name is looked up in every item. An item of an empty list is empty
    text: the field is there, but says nothing. A field whose own name holds the dots is found too.
    """
    if isinstance(value, dict):
        if path in value:
            return value[path]
        name, dot, rest = path.partition(".")
        return find(value[name], rest) if dot and name in value else None
    if not isinstance(value, list):
        return None
    name, dot, rest = path.partition(".")
    if not name.isdecimal():
        found = [find(item, path) for item in value]
        return found if any(item is not None for item in found) else None
    if not value:
        return ""
    item = value[int(name)] if int(name) < len(value) else None
    return find(item, rest) if dot else item


@dataclass(frozen=True)
class Reach:
    """What a set of paths reaches: whole values, what stands above them, and the items of lists that they name."""

    whole: frozenset[str]
    above: frozenset[str]
    items: dict[str, set[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, paths: Iterable[str]) -> Reach:
        whole: set[str] = set()
        above: set[str] = set()
        items: dict[str, set[int]] = {}
        for path in paths:
            at = ""
            for name in path.split("."):
                if name.isdecimal() and at:
                    items.setdefault(at, set()).add(int(name))
                else:
                    above.add(at)
                    at = f"{at}.{name}" if at else name
            whole |= {at, path}
        return cls(frozenset(whole), frozenset(above), items)


def unreached(value: dict[Any, Any], reach: Reach, before: str = "") -> Iterator[str]:
    """Paths of what a row holds and no path reaches; nulls, empty texts and empty lists hold nothing."""
    for name, item in value.items():
        path = f"{before}{name}"
        if path in reach.items and isinstance(item, list):
            chosen = reach.items[path]
            if any(number not in chosen and says_anything(other) for number, other in enumerate(item)):
                yield f"{path} (other items)"
            item = [other for number, other in enumerate(item) if number in chosen]
        if path in reach.whole or not says_anything(item):
            continue
        parts = item if isinstance(item, list) else [item]
        if path not in reach.above or not all(isinstance(part, dict) for part in parts):
            yield path
            continue
        for part in parts:
            yield from unreached(part, reach, f"{path}.")


def says_anything(value: Any) -> bool:
    """Whether a value says anything."""
    return value is not None and value not in ("", [], {})


def spread_along(raw: dict[str, Any], path: str, along: Collection[str]) -> list[tuple[dict[str, Any], frozenset[str]]]:
    """The row once for every item of the first list on a path, the item in the list's place; just once without a list.

    With each goes which of the paths `along` differ from one to the next: those through that list; or, where the list
    holds no objects, all that lead to lists, which then run parallel to it. Raises InputError for an empty list, one of
    mixed items, and parallel ones that are not as long.
    """
    at = _first_list(raw, path)
    if at is None:
        return [(raw, frozenset())]
    items = find(raw, at)
    if not items:
        raise InputError(f"'{at}' is an empty list, so the row holds no edit")
    if all(isinstance(item, dict) for item in items):
        own = frozenset(inner for inner in along if inner.startswith(f"{at}."))
        return [(_put(raw, at, item), own) for item in items]
    if any(isinstance(item, dict) for item in items):
        raise InputError(f"'{at}' holds objects and other values; let it hold one kind")
    starts = {field: start for field in along if (start := _first_list(raw, field)) is not None}
    lists = {start: find(raw, start) for start in [at, *starts.values()]}
    for start, found in lists.items():
        if len(found) != len(items):
            raise InputError(f"'{at}' holds {len(items)} items and '{start}' {len(found)}; give one for each edit")
    parts = []
    for number in range(len(items)):
        part = raw
        for start, found in lists.items():
            part = _put(part, start, found[number])
        parts.append((part, frozenset(starts)))
    return parts


def _first_list(raw: dict[str, Any], path: str) -> str | None:
    """The path of the first list on a path, unless a number says which item of it is meant."""
    names = path.split(".")
    for count in range(1, len(names) + 1):
        at = ".".join(names[:count])
        if isinstance(find(raw, at), list):
            return None if count < len(names) and names[count].isdecimal() else at
    return None


def _put(value: Any, path: str, item: Any) -> dict[str, Any]:
    """A copy of nested objects with another value at a path that exists there."""
    if path in value:
        return {**value, path: item}
    name, _, rest = path.partition(".")
    return {**value, name: _put(value[name], rest, item)}
