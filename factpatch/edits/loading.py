"""Reading edit requests: a file, a folder or a hub data set, as one stream of native rows.

Which forms there are, and how a row of each is read, stands in `factpatch.edits.forms`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factpatch.addresses import HUB_TIMEOUT
from factpatch.edits.formats import (
    FILE_FORMATS,
    count_read_as_text,
    find_layout,
    has_known_ending,
    read_file,
    row_as_text,
)
from factpatch.edits.forms import FIELDS, Columns, FormReader, find, seen_fields
from factpatch.errors import InputError

if TYPE_CHECKING:
    import datasets

__all__ = ["FIELDS", "Row", "list_files", "read_as", "read_named", "read_rows", "stream_rows"]


_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_NUMBER = re.compile(r"\d+")
_BESIDE_EDITS = frozenset({".md", ".dvc"})  # files that may stand beside edits in a folder


@dataclass(frozen=True, slots=True)  # there may be very many
class Row:
    """One edit as read: fields renamed to the native ones, absent ones left out, nothing checked yet.

    Attributes:
        file, number: where its row stands, counted from 1. `part` says which edit of several in that row this is.
        values: the fields.
        stray: names of fields whose stray blanks were removed since. `odd` the characters that were mended, with their
            fields.
        form: of its row, by name. `unused` names what of the row no edit uses, and stands with the row's first edit.
        converted: how many of its texts are numbers or dates in the file.
    """

    file: str
    number: int
    values: dict[str, Any]
    stray: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()
    form: str = field(default="native", compare=False)
    unused: tuple[str, ...] = field(default=(), compare=False)
    part: str = field(default="", compare=False)
    converted: int = field(default=0, compare=False)

    @property
    def where(self) -> str:
        place = f"{self.file} row {self.number}"
        return f"{place} ({self.part})" if self.part else place


def read_rows(source: str, columns: Columns | None = None) -> Iterator[Row]:
    """All edits of a file, a folder (files in file-name order) or a hub data set, one at a time.

    `columns` says where our fields stand in rows of another form, as the setting `edits.columns` does. Raises
    InputError, in one line, for what is absent, empty, broken, or of no known form, and for a path that no row has.
    """
    for example in _examples(source, dict(columns or {})):
        yield Row(**example)


def read_named(path: str, setting: str) -> Iterator[Row]:
    """The rows of what a setting names, as `read_rows` gives them; its errors name the setting too."""
    try:
        yield from read_rows(path)
    except InputError as error:
        raise InputError(f"{setting}: {error}") from error


def stream_rows(source: str, columns: Columns | None = None) -> datasets.IterableDataset:
    """All edits of a source as a streaming data set of the fields of `Row`, for `map`, `filter` and the like."""
    import datasets

    try:
        given = {"source": source, "columns": dict(columns or {})}
        return datasets.IterableDataset.from_generator(_examples, gen_kwargs=given)
    except OSError as error:  # `datasets` keeps a lock in its cache, though nothing of a stream
        raise InputError(
            f"the cache of `datasets` cannot be written ({error}); set HF_HOME to another folder"
        ) from error


def read_as(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """For each file and form: how the file is written, how many rows, how many edits they hold, and how many rows have
    each unused field."""
    rows_of: dict[tuple[str, str], set[int]] = {}
    edits: Counter[tuple[str, str]] = Counter()
    unused: dict[tuple[str, str], Counter[str]] = {}
    converted: Counter[str] = Counter()
    for row in rows:
        key = row.file, row.form
        converted[row.file] += row.converted
        rows_of.setdefault(key, set()).add(row.number)
        edits[key] += 1
        unused.setdefault(key, Counter()).update(row.unused)
    formats = {file: _format(file, converted[file]) for file, _ in rows_of}
    return [
        {
            "file": file,
            "format": formats[file],
            "form": form,
            "rows": len(numbers),
            "edits": edits[file, form],
            "unused": dict(sorted(unused[file, form].items())),
        }
        for (file, form), numbers in rows_of.items()
    ]


def _format(file: str, converted: int) -> str:
    """How a file is written, in words."""
    return find_layout(Path(file)).describe(converted) if Path(file).is_file() else "data set of the hub"


def _examples(source: str, columns: dict[str, str]) -> Iterator[dict[str, Any]]:
    reader = FormReader(columns)
    absent = {path: name for name, paths in columns.items() for path in paths.split("+")}
    seen: dict[str, None] = {}  # in the order met
    for file, number, raw in _raw_rows(source):
        try:
            readings = reader.read(raw)
        except InputError as error:
            raise InputError(f"{file} row {number}: {error}") from error
        for reading in readings:
            yield {
                "file": file,
                "number": number,
                "values": reading.values,
                "form": reading.form,
                "unused": reading.unused,
                "part": reading.part,
                "converted": count_read_as_text(reading.values),
            }
        if absent:
            absent = {path: name for path, name in absent.items() if find(raw, path) is None}
            seen.update(dict.fromkeys(raw))
    for path, name in absent.items():
        raise InputError(
            f"no row of '{source}' has '{path}', which edits.columns names for '{name}'; fields seen: "
            f"{seen_fields(seen)}"
        )


def _raw_rows(source: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
    path = Path(source)
    if path.is_dir():
        for file in list_files(path):
            yield from ((str(file), number, raw) for number, raw in read_file(file))
    elif path.exists():
        yield from ((source, number, raw) for number, raw in read_file(path))
    else:
        for number, raw in enumerate(_hub_rows(source), start=1):
            yield source, number, row_as_text(f"{source} row {number}", raw)


def list_files(folder: Path) -> list[Path]:
    """The folder's files in file-name order; hidden ones, notes and DVC's pointers are no edits.

    Raises InputError for none at all, for what is no file or stands for one that is not here, as its facts would count
    as withdrawn, and where the numbers that names begin with disagree with file-name order.
    """
    try:
        names = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"folder '{folder}' cannot be read ({error.strerror})") from error
    for path in names:
        if path.suffix.lower() == ".dvc" and not path.with_suffix("").exists():
            raise InputError(f"'{path}' stands for a file that is not here; fetch it with 'dvc pull'")
        if path.is_symlink() and not path.exists():
            raise InputError(f"'{path}' is a link to what is not here; fetch it with 'dvc pull', or remove the link")
        if not path.is_file():
            raise InputError(f"'{path}' is no file; edits stand in the folder itself, so move or hide it")
    files = [path for path in names if path.suffix.lower() not in _BESIDE_EDITS]
    if not files:
        raise InputError(f"folder '{folder}' holds no edits; put files there that end in {', '.join(FILE_FORMATS)}")
    numbered = [(int(found[0]), path) for path in files if (found := _NUMBER.match(path.name))]
    for (first, before), (second, after) in pairwise(numbered):
        if second < first:
            raise InputError(
                f"'{after}' is out of order: file-name order puts it after '{before.name}'; give all numbers as many "
                f"digits, such as {second:0{len(str(first))}d}"
            )
    return files


def _hub_rows(name: str) -> Iterable[dict[str, Any]]:
    """Rows of a hub data set's `train` split, or of its first one."""
    import datasets
    import huggingface_hub

    absent = f"edits '{name}': no such file or folder"
    if not _may_be_on_hub(name):
        raise InputError(f"{absent}; check the path")
    try:
        if not huggingface_hub.constants.HF_HUB_OFFLINE:  # asked first, as `datasets` repeats a failing call for long
            huggingface_hub.HfApi().dataset_info(name, timeout=HUB_TIMEOUT)
        splits = datasets.load_dataset(name, streaming=True)
    except Exception as error:  # whatever the network, the hub or the set's own layout raises
        reason = f"no data set of that name came from the hub ({type(error).__name__})"
        raise InputError(f"{absent}, and {reason}; check the path") from error
    return splits["train"] if "train" in splits else next(iter(splits.values()))


def _may_be_on_hub(name: str) -> bool:
    """Whether an absent path is shaped like a hub name, and unlike a slip in the name of a local file."""
    owner, _, rest = name.partition("/")
    is_local = has_known_ending(name) or (rest != "" and Path(owner).is_dir())
    return _HUB_NAME.fullmatch(name) is not None and not is_local
