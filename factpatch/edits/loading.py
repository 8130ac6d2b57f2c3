"""Reading edit requests: a file, a folder or a hub data set of any known form, as one stream of native rows.

Forms are told by their fields. The public ones and what becomes of them (fields not named are left out):

    ZsRE                       src, alt -> prompt, target; answers -> target_old; rephrase -> paraphrases;
                               loc, loc_ans -> locality. `pred`, one model's answer, is left out
    CounterFact, WikiBigEdit   prompt, target_new -> prompt, target; ground_truth -> target_old; rephrase_prompt ->
                               paraphrases; locality_* and portability_* (_prompt, _ground_truth) -> probes
    QAEdit                     as native, with rephrase -> paraphrases, and loc, loc_ans inside locality
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factpatch.edits.formats import READERS, read_file
from factpatch.edits.request import EditRequest
from factpatch.errors import InputError

if TYPE_CHECKING:
    import datasets

HUB_TIMEOUT = 10.0  # seconds to ask whether a hub data set exists
FIELDS = tuple(field.name for field in dataclasses.fields(EditRequest))

_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_NUMBER = re.compile(r"\d+")
_BESIDE_EDITS = frozenset({".md", ".dvc"})  # files that may stand beside edits in a folder


@dataclass(frozen=True, slots=True)  # there may be very many
class Row:
    """One row as read: fields renamed to the native ones, absent ones left out, nothing checked yet.

    `file` and the 1-based `number` say where it stands; `stray` names fields whose stray blanks were removed since, and
    `odd` the characters that were mended, with their fields.
    """

    file: str
    number: int
    values: dict[str, Any]
    stray: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        return f"{self.file} row {self.number}"


def read_rows(source: str) -> Iterator[Row]:
    """All rows of a file, a folder (files in file-name order) or a hub data set, one at a time.

    Raises InputError, in one line, for what is absent, empty, broken, or of no known form.
    """
    for example in _examples(source):
        yield Row(example["file"], example["number"], example["values"])


def read_named(path: str, setting: str) -> Iterator[Row]:
    """The rows of what a setting names, as `read_rows` gives them; its errors name the setting too."""
    try:
        yield from read_rows(path)
    except InputError as error:
        raise InputError(f"{setting}: {error}") from error


def open_rows(source: str) -> datasets.IterableDataset:
    """The same rows as a streaming data set of {file, number, values}, for `map`, `filter` and the like."""
    import datasets

    try:
        return datasets.IterableDataset.from_generator(_examples, gen_kwargs={"source": source})
    except OSError as error:  # `datasets` keeps a lock in its cache, though nothing of a stream
        raise InputError(
            f"the cache of `datasets` cannot be written ({error}); set HF_HOME to another folder"
        ) from error


def to_native(raw: dict[str, Any]) -> dict[str, Any] | None:
    """A row of any known form under native field names, or None if its form is not known.

    Null is the same as absent: Arrow pads rows with nulls. Texts stand in for lists of one.
    """
    if "src" in raw or "alt" in raw:
        values = _from_zsre(raw)
    elif raw.keys() & {"target_new", "rephrase_prompt", "locality_prompt"}:
        values = _from_counterfact(raw)
    elif raw.keys() & {"prompt", "target", "op"}:
        values = _from_native(raw)
    else:
        return None
    return {name: value for name, value in values.items() if value is not None and value != []}


def misspelt(raw: dict[str, Any]) -> list[tuple[str, str]]:
    """Fields of a native row that look like slips for others that it lacks, with those; other extra fields are free."""
    if "src" in raw or "alt" in raw or "prompt" not in raw:
        return []
    absent = [name for name in FIELDS if name not in raw]
    extra = [name for name in raw if isinstance(name, str) and name not in FIELDS and raw[name] is not None]
    near = {name: difflib.get_close_matches(name.lower(), absent, n=1, cutoff=0.84) for name in extra}
    return [(name, found[0]) for name, found in near.items() if found]


def _examples(source: str) -> Iterator[dict[str, Any]]:
    for file, number, raw in _raw_rows(source):
        values = to_native(raw)
        if values is None:
            seen = " ".join(", ".join(map(str, raw)).split())[:200] or "none"
            raise InputError(
                f"{file} row {number}: its form is not known (fields: {seen}); give every row a 'prompt' and a 'target'"
            )
        for name, meant in misspelt(raw):
            raise InputError(
                f"{file} row {number}: field '{name}' is not known; did you mean '{meant}'? Rename it, or leave it out"
            )
        yield {"file": file, "number": number, "values": values}


def _raw_rows(source: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
    path = Path(source)
    if path.is_dir():
        for file in list_files(path):
            yield from ((str(file), number, raw) for number, raw in read_file(file))
    elif path.exists():
        yield from ((source, number, raw) for number, raw in read_file(path))
    else:
        yield from ((source, number, raw) for number, raw in enumerate(_hub_rows(source), start=1))


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
        raise InputError(f"folder '{folder}' holds no edits; put files there that end in {', '.join(READERS)}")
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
    is_local = Path(name).suffix.lower() in READERS or (rest != "" and Path(owner).is_dir())
    return _HUB_NAME.fullmatch(name) is not None and not is_local


def _from_zsre(raw: dict[str, Any]) -> dict[str, Any]:
    return {
        "prompt": raw.get("src"),
        "target": raw.get("alt"),
        "subject": raw.get("subject"),
        "target_old": _listed(raw.get("answers")),
        "paraphrases": _listed(raw.get("rephrase")),
        "locality": _pairs(raw.get("loc"), raw.get("loc_ans")),
    }


def _from_counterfact(raw: dict[str, Any]) -> dict[str, Any]:
    return {
        "prompt": raw.get("prompt"),
        "target": raw.get("target_new"),
        "subject": raw.get("subject"),
        "target_old": _listed(raw.get("ground_truth")),
        "paraphrases": _listed(raw.get("rephrase_prompt")),
        "locality": _pairs(raw.get("locality_prompt"), raw.get("locality_ground_truth")),
        "portability": _pairs(raw.get("portability_prompt"), raw.get("portability_ground_truth")),
    }


def _from_native(raw: dict[str, Any]) -> dict[str, Any]:
    values = {name: raw.get(name) for name in FIELDS}
    name = values["id"]
    return values | {
        "id": str(name) if isinstance(name, int) else name,  # numbered rows are common
        "target_old": _listed(values["target_old"]),
        "paraphrases": _listed(_either(raw, "paraphrases", "rephrase")),
        "locality": _probes(values["locality"]),
        "portability": _probes(values["portability"]),
    }


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _pairs(prompts: Any, answers: Any) -> list[dict[str, Any]] | None:
    """Probes from a prompt and its answer (the first of several), or from a list of each."""
    if prompts is None or answers is None:
        return None
    if not isinstance(prompts, list):
        first = answers[0] if isinstance(answers, list) and answers else answers
        return [{"prompt": prompts, "target": first}]
    return [{"prompt": prompt, "target": answer} for prompt, answer in zip_longest(prompts, _listed(answers))]


def _probes(value: Any) -> Any:
    """Probes under native names; what is not of their shape stays as it is, for the checks to name."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        return value
    return [_probe(item) if isinstance(item, dict) else item for item in value]


def _probe(item: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": _either(item, "prompt", "loc"), "target": _either(item, "target", "loc_ans")}


def _either(raw: dict[str, Any], first: str, second: str) -> Any:
    return raw[first] if raw.get(first) is not None else raw.get(second)
