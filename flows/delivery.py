"""The verbs by which a patch leaves the project: `export` in the form in which it will be served, and `inspect`."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factpatch.errors import InputError, RefusedError
from factpatch.settings.config import Settings, load_settings
from flows.doctor import check_machine

if TYPE_CHECKING:
    from factpatch.edits.request import EditRequest

FORMATS = ("model", "peft", "gguf", "gguf-lora")
BESIDE = ("gguf", "gguf-lora")  # those that are made for a GGUF file
Overrides = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What is exported: a registered version, or a `patch` folder in its place; in which form, and where to."""

    output: Path
    version: str = "champion"
    patch: str | None = None
    format: str = "model"
    base: str | None = None
    type: str | None = None
    rank: int | None = None
    link: bool = False

    def __post_init__(self) -> None:
        if self.format in BESIDE and self.base is None:
            raise InputError(f"--format {self.format} needs --base FILE.gguf, the file that is served today")
        for flag, given, fits in (
            ("--base", self.base, self.format in BESIDE),
            ("--type", self.type, self.format == "gguf"),
            ("--rank", self.rank, self.format in ("peft", "gguf-lora")),
            ("--link", self.link or None, self.format == "model" and self.patch is not None),
        ):
            if given is not None and not fits:
                raise InputError(f"{flag} means nothing to what is exported here")
        if self.output.exists() and (not self.output.is_dir() or any(self.output.iterdir())):
            raise InputError(f"'{self.output}' exists; name a new --output")


def export(args: argparse.Namespace, overrides: Overrides) -> int:
    """Save a registered version, or a patch, in one of FORMATS."""
    settings = load_settings(args.config, overrides)
    named = {name: getattr(args, name) for name in ("version", "patch", "format", "base", "type", "rank", "link")}
    wanted = Wanted(Path(args.output), **named)
    if wanted.patch is None:
        check_machine("export", settings)
    print(export_as(settings, wanted))
    return 0


def inspect(args: argparse.Namespace, overrides: Overrides) -> int:
    """Print what a patch holds; no model is needed."""
    from factpatch.delivery.inspection import describe_patch

    print("\n".join(describe_patch(args.patch)))
    return 0


def export_as(settings: Settings, wanted: Wanted) -> object:
    """Write what is wanted, whole or not at all; what is said of it. RefusedError for a form that the gates refused."""
    if wanted.patch is None:
        _refuse_unreleased(settings, wanted)
        if wanted.format == "model":
            from integrations.mlflow_registry import export_version

            return export_version(settings.registry, wanted.version, wanted.output, settings.model.path)
    with _opened(settings, wanted) as (patch, base, facts):
        return _write(replace(settings, model=replace(settings.model, path=base)), wanted, patch, facts)


def _refuse_unreleased(settings: Settings, wanted: Wanted) -> None:
    from integrations.mlflow_registry import read_version

    found = read_version(settings.registry, wanted.version)
    form = (found.release.get("serving") or {}).get(wanted.format)
    if form and not form["released"]:
        told = " ".join(gate["reason"] for gate in form["gates"] if gate["verdict"] in ("failed", "undecided"))
        raise RefusedError(f"version {found.number} is not released as {wanted.format}: {told}")


@contextmanager
def _opened(settings: Settings, wanted: Wanted) -> Iterator[tuple[Path, str, tuple[EditRequest, ...]]]:
    """The patch, where its base model is, and the facts that it was measured to hold, for as long as the block runs."""
    from factpatch.delivery.asking import facts_beside, facts_of
    from factpatch.patches.base import find_base

    if wanted.patch is not None:
        yield Path(wanted.patch), find_base(wanted.patch, settings.model.path), facts_beside(wanted.patch)
        return
    from integrations.mlflow_registry import fetch_patch, read_answers

    with tempfile.TemporaryDirectory(prefix="factpatch.") as folder:
        patch = fetch_patch(settings.registry, wanted.version, Path(folder))
        _, rows = read_answers(settings.registry, wanted.version)
        yield patch, find_base(patch, settings.model.path), facts_of(rows)


def _write(settings: Settings, wanted: Wanted, folder: Path, facts: tuple[EditRequest, ...]) -> object:
    if wanted.format == "model":
        from factpatch.patches.export import export_patch

        return export_patch(settings.model, folder, wanted.output, wanted.link)
    from factpatch.delivery.asking import as_measured
    from factpatch.models.loading import load_model
    from factpatch.patches.patch import read_patch

    patch = read_patch(folder)
    settings = as_measured(settings, patch)
    loaded = load_model(settings.model)
    if wanted.format == "peft":
        from factpatch.delivery.peft_adapter import export_adapter

        return export_adapter(loaded, patch, wanted.output, facts, settings, wanted.rank)
    from factpatch.delivery.gguf_export import export_gguf, export_gguf_lora
    from factpatch.delivery.quantizing import named_type

    file = Path(str(wanted.base))
    if wanted.format == "gguf-lora":
        return export_gguf_lora(loaded, patch, file, wanted.output, facts, settings, wanted.rank)
    kind = named_type(wanted.type) if wanted.type else None
    return export_gguf(loaded, patch, file, wanted.output, facts, settings, kind)
