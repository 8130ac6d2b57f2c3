"""From what a user names as the model to what can be loaded. GGUF files and PEFT adapters become ordinary model folders
once, and stay in a cache."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from factpatch.errors import InputError
from factpatch.files import digest_value, output_folder
from factpatch.models.sources.identity import model_identity
from factpatch.models.sources.kinds import adapter_base, adapter_files, is_adapter, is_gguf

if TYPE_CHECKING:
    from factpatch.models.sources.adapter import Loader
    from factpatch.models.sources.saving import ConvertedModel

CACHE = Path(".cache/models")
CONVERSION_VERSION = 1  # of what is kept; another one where models are made otherwise, so that old ones are not used


_told: set[Path] = set()  # folders that this process has named


def resolve_source(path: str, load: Loader) -> str:
    """The folder or hub name to load for `path`: itself, or the folder made of a GGUF file or a PEFT adapter, now or
    by an earlier run. `load` loads an adapter's base.

    Raises InputError where one of these cannot be read.
    """
    source = Path(path)
    if is_gguf(source):
        what = f"'{path}' is a GGUF file"
    elif is_adapter(source):
        what = f"'{path}' is a PEFT adapter, merged with its base '{adapter_base(source)}'"
    else:
        _refuse_folder_of_gguf(source)
        return path
    folder = _place(source)
    with _alone(folder):
        if not folder.is_dir():
            _check(source)
            _tell(f"model: {what}; making an ordinary model folder of it, once")
            _tell(f"model: {make_folder(source, folder, load)}")
        elif folder not in _told:
            _tell(f"model: {what}; its ordinary model folder is '{folder}'")
    _told.add(folder)
    return str(folder)


def make_folder(source: Path, output: Path, load: Loader) -> ConvertedModel:
    """Make an ordinary model folder of a GGUF file or of a PEFT adapter, whose base `load` loads, whole or not at all.
    InputError if the source is neither or cannot be read, or if something is in the way."""
    if is_gguf(source):
        from factpatch.models.sources.gguf_file import import_gguf

        return import_gguf(source, output)
    if is_adapter(source):
        from factpatch.models.sources.adapter import merge_adapter

        return merge_adapter(source, output, load)
    raise InputError(f"'{source}' is neither a GGUF file nor the folder of a PEFT adapter; nothing else is imported")


def _place(source: Path) -> Path:
    """Where the folder made of the source stays: another place once its files are others."""
    files = adapter_files(source) if source.is_dir() else [source]
    try:
        times = [file.stat().st_mtime_ns for file in files]
    except OSError as error:
        raise InputError(f"model file '{error.filename}' cannot be read ({error.strerror})") from error
    return CACHE / f"{source.stem}-{digest_value([CONVERSION_VERSION, model_identity(str(source)), times])[:16]}"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process makes the same folder meanwhile; they wait."""
    output_folder(folder.parent)
    with ExitStack() as held:
        with suppress(OSError):  # a file system without locks: the folder is made twice, at worst
            held.enter_context(FileLock(folder.parent / f".{folder.name}.lock"))
        yield


def _check(source: Path) -> None:
    """InputError for what a glance at a GGUF file shows to be wrong with it."""
    if is_gguf(source):
        from factpatch.models.sources.header import read_gguf_header

        read_gguf_header(source)


def _tell(line: str) -> None:
    """Print a line on the side, so that answers stay alone on the standard output."""
    print(line, file=sys.stderr, flush=True)


def _refuse_folder_of_gguf(source: Path) -> None:
    """InputError for a folder that holds GGUF files and no other model."""
    if source.is_dir() and not (source / "config.json").exists():
        for file in sorted(source.glob("*.gguf")):
            raise InputError(f"model folder '{source}' holds GGUF files; name one of them, such as '{file}'")
