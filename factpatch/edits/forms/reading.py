"""Reading one row: which form it has, the edits that it holds, and what of it is not used."""

from __future__ import annotations

import dataclasses
import difflib
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from factpatch.edits.forms.fields import FIELDS, PROBE_LISTS, TEXT_LISTS, pairs, probes_from, text_list
from factpatch.edits.forms.known_forms import FOREIGN, NATIVE, Columns, Form, Raw
from factpatch.edits.forms.paths import find, says_anything, spread_along, unreached
from factpatch.errors import InputError

NATIVE_FIELDS = frozenset(FIELDS)
LISTS = frozenset((*TEXT_LISTS, *PROBE_LISTS))
OF_THE_FIRST = frozenset({"id", *LISTS})  # fields that, where a row holds several edits, belong to the first of them
SIMILAR = 0.84  # two names that are slips for each other

_LANGUAGE = re.compile(r"[a-z]{2}([-_][a-z]{2,4})?", re.IGNORECASE)


@dataclass(frozen=True)
class Reading:
    """One edit as read from a row: its form, its native fields and the row's fields that no edit of it uses.

    `part` says which edit of several in one row this is; `unused` stands with the first of them.
    """

    form: str
    values: dict[str, Any]
    unused: tuple[str, ...] = ()
    part: str = ""


class FormReader:
    """Reads rows of every known form, and those that a map of columns describes.

    Where the map names the prompt, it is the form of all rows that have that path; else it adds to the known forms.
    """

    def __init__(self, columns: Columns | None = None) -> None:
        columns = columns or {}
        mapped = frozenset(name.partition(".")[0] for name in columns)
        self.prompt = columns.get("prompt")
        self.own = Form("columns", {}, columns, mapped=mapped, template=True, several=True) if self.prompt else None
        added = {} if self.prompt else columns

        def widen(form: Form) -> Form:
            both = {**form.columns, **added}
            return dataclasses.replace(form, columns=both, mapped=mapped) if added else form

        self.foreign, self.native = tuple(map(widen, FOREIGN)), widen(NATIVE)
        self.by_mark: dict[str, list[Form]] = {}  # the forms of which a field is the first mark
        for form in self.foreign:
            self.by_mark.setdefault(next(iter(form.marks)), []).append(form)

    def read(self, raw: Raw) -> list[Reading]:
        """The edits that a row holds, in their order.

        Raises InputError for a form that is not known, that two forms share, or that cannot be read, and for a field
        that looks like a slip for one that the row lacks.
        """
        inner = _by_language(raw) if raw.get("prompt") is None else {}
        form = self._form(raw, inner)
        if form is None and inner:
            return self._read_languages(raw, inner)
        if form is None:
            raise InputError(self._unknown(raw))
        if form.refusal:
            raise InputError(f"its form is that of {form.name}, which cannot be read: {form.refusal}")
        return list(_read(form, raw))

    def _form(self, raw: Raw, inner: Mapping[str, Raw]) -> Form | None:
        """The form of a row; None for one that is not known, or that holds a row for each language and no more."""
        if self.own and self.prompt and any(find(raw, path) is not None for path in self.prompt.split("+")):
            return self.own
        said = raw.get("prompt") is not None
        whole = said and (raw.get("target") is not None or raw.get("op") is not None)
        fitting = [form for name in raw for form in self.by_mark.get(name, ()) if form.fits(raw)]
        if whole:  # a native row may bear anything beside, but not what says the same once more
            fitting = [form for form in fitting if "prompt" in form.marks]
        if len(fitting) > 1:
            names = " and ".join(form.name for form in fitting)
            raise InputError(
                f"its fields fit the forms {names}; leave out those of one, or map the fields with --columns"
            )
        if fitting:
            return fitting[0]
        if said:
            return self.native
        alone = (form for form in self.foreign if any(raw.get(name) is not None for name in form.alone))
        return next(alone, self.native if raw.keys() & {"prompt", "target", "op"} and not inner else None)

    def _read_languages(self, raw: Raw, inner: Mapping[str, Raw]) -> list[Reading]:
        """One row for every language; native fields beside them hold for each."""
        shared = {name: value for name, value in raw.items() if name in NATIVE_FIELDS and name not in inner}
        unused = [
            name for name, value in raw.items() if name not in inner and name not in shared and says_anything(value)
        ]
        found = []
        for number, (language, row) in enumerate(inner.items()):
            beside = {name: value for name, value in shared.items() if number == 0 or name not in OF_THE_FIRST}
            try:
                readings = self.read({**beside, **row})
            except InputError as error:
                raise InputError(f"{language}: {error}") from error
            for reading in readings:
                part = f"{language}, {reading.part}" if reading.part else language
                found.append(Reading(sys.intern(f"{reading.form} by language"), reading.values, reading.unused, part))
        _refuse_slips(self.native, raw, set(unused))
        every = (*unused, *(name for reading in found for name in reading.unused))
        return [
            dataclasses.replace(reading, unused=_sorted(frozenset(every)) if number == 0 else ())
            for number, reading in enumerate(found)
        ]

    def _unknown(self, raw: Raw) -> str:
        seen = seen_fields(raw)
        advice = "give every row a 'prompt' and a 'target', or say where they are: --columns prompt=FIELD,target=FIELD"
        if self.prompt:
            return (
                f"it has no '{self.prompt}', which edits.columns names as the prompt (fields: {seen}); correct the path"
            )
        return f"its form is not known (fields: {seen}); {advice}"


def seen_fields(raw: Raw) -> str:
    """The fields of a row, as a message shows them in one line."""
    return " ".join(", ".join(map(str, raw)).split())[:200] or "none"


def _by_language(raw: Raw) -> dict[str, Raw]:
    """The rows that stand under names of languages, such as `en` and `zh-cn`; `op` is none."""
    return {
        name: value
        for name, value in raw.items()
        if isinstance(value, dict) and name != "op" and _LANGUAGE.fullmatch(str(name))
    }


def _read(form: Form, raw: Raw) -> Iterator[Reading]:
    if form is NATIVE:
        values = {name: raw[name] for name in FIELDS if raw.get(name) is not None}
        if values.keys().isdisjoint(LISTS) and raw.keys() <= NATIVE_FIELDS:
            yield Reading(form.name, _plain(values))
            return
    arranged = form.arrange(raw) if form.arrange else raw
    unused: set[str] = set(unreached(arranged, form.reach))
    parts = _parts(form, arranged)
    every = [_values(form, part, unused, own if number else None) for number, (part, own) in enumerate(parts)]
    _refuse_slips(form, arranged, unused)
    for number, values in enumerate(every):
        part = f"{number + 1} of {len(parts)}" if len(parts) > 1 else ""
        yield Reading(form.name, values, () if number else _sorted(frozenset(unused)), part)


def _parts(form: Form, raw: Raw) -> list[tuple[Raw, frozenset[str]]]:
    """The row once for each edit that it holds, with the paths that belong to that edit alone."""
    if not form.several:
        return [(raw, frozenset())]
    prompts = form.paths["prompt"]
    given = next((path for path in prompts if find(raw, path) is not None), prompts[0])
    return spread_along(raw, given, form.column_paths)


def _values(form: Form, raw: Raw, unused: set[str], own: Collection[str] | None) -> dict[str, Any]:
    """The native fields of one edit. `own` are the paths that belong to it alone, where it is not the row's first."""
    found: dict[str, list[tuple[str, Any]]] = {}
    for name, paths in form.paths.items():
        if own is not None and name.partition(".")[0] in OF_THE_FIRST:
            paths = tuple(path for path in paths if path in own)
        said = [(path, value) for path in paths if (value := find(raw, path)) is not None]
        if said:
            found[name] = said
    values: dict[str, Any] = {}
    for name in FIELDS:
        said = found.get(name, [])
        if name in TEXT_LISTS:
            values[name] = _distinct([text_list(value) for _, value in said])
        elif name in PROBE_LISTS:
            values[name] = [probe for path, value in said for probe in probes_from(value, path, unused)]
            asked, answered = found.get(f"{name}.prompt"), found.get(f"{name}.target")
            if asked and answered:
                values[name] += pairs(asked[0][1], answered[0][1], asked[0][0], answered[0][0], unused)
            elif asked or answered:  # neither is of use without the other
                unused.update(
                    path
                    for path, value in asked or answered or ()
                    if path in form.probe_part_paths and says_anything(value)
                )
        elif said:
            values[name] = _one(said)
    values = {name: value for name, value in values.items() if value != [] or name not in LISTS}
    return _filled(form, _plain(values))


def _one(said: list[tuple[str, Any]]) -> Any:
    """What all paths of a field agree on."""
    (first, value), *others = said
    for path, other in others:
        if other != value:
            raise InputError(f"'{first}' and '{path}' say the same field differently; keep one of them")
    return value


def _distinct(lists: list[list[Any]]) -> list[Any]:
    """All items of several lists, without those of later lists that an earlier one holds."""
    joined = lists[0] if lists else []
    for more in lists[1:]:
        joined = [*joined, *(item for item in more if item not in joined)]
    return joined


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Without empty texts, which some programs write for what is absent, but where the checks would miss something."""
    values = {name: value for name, value in values.items() if value != "" or name in ("prompt", "target", "op")}
    name = values.get("id")
    if isinstance(name, int) and not isinstance(name, bool):
        values["id"] = str(name)  # numbered rows are common
    return values


def _filled(form: Form, values: dict[str, Any]) -> dict[str, Any]:
    """The fields with the subject in the prompt's `{}`, in forms that have such prompts."""
    prompt, subject = values.get("prompt"), values.get("subject")
    if not form.template or not isinstance(prompt, str) or "{}" not in prompt:
        return values
    if isinstance(subject, str):
        return {**values, "prompt": prompt.replace("{}", subject)}
    if form.name == "columns":
        return values  # braces may be what is asked about
    raise InputError(f"its prompt {prompt[:60]!r} has a '{{}}' for the subject, but the row has no subject; add it")


def _refuse_slips(form: Form, raw: Raw, unused: set[str]) -> None:
    """InputError for an unused field that looks like a slip for one that the row lacks, or that says what `op` says."""
    left = sorted(name for name in unused if name in raw)
    if not left:
        return
    absent = tuple(sorted(name for name in form.fields if name not in raw))
    for name, meant in _slips(tuple(left), absent):
        raise InputError(f"field '{name}' is not known; did you mean '{meant}'? Rename it, or leave it out")
    for name in left:
        if raw[name] == "revert":
            raise InputError(f"field '{name}' says 'revert', but it is 'op' that withdraws a fact; rename it")


@lru_cache(maxsize=1024)
def _slips(names: tuple[str, ...], absent: tuple[str, ...]) -> list[tuple[str, str]]:
    near = {name: difflib.get_close_matches(name.lower(), absent, n=1, cutoff=SIMILAR) for name in names}
    return [(name, found[0]) for name, found in near.items() if found]


@lru_cache(maxsize=1024)
def _sorted(names: frozenset[str]) -> tuple[str, ...]:
    """One tuple for all rows that leave the same fields unused."""
    return tuple(sorted(names))
