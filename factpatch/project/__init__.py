"""A project of one's own: the files that a team starts with, for a model of its choice."""

from __future__ import annotations

import os
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from transformers import AutoConfig

from factpatch.errors import InputError
from factpatch.files import new_folder
from factpatch.models.loading import check_source, local_only
from factpatch.settings.config import ModelSettings

PROJECT_FILES = {  # where each template goes
    "params.yaml": "params.yaml",
    "README.md": "README.md",
    "edits.csv": "data/edits/0001-example.csv",
    "requirements.txt": "requirements.txt",
    "dvc.yaml": "dvc.yaml",
    "dvcignore": ".dvcignore",
    "dvcconfig": ".dvc/config",
    "dvcgitignore": ".dvc/.gitignore",
    "prefect.yaml": "prefect.yaml",
    "edits.yml": ".github/workflows/edits.yml",
    "gitignore": ".gitignore",
}
ALLOWED = {".git", ".cache"}  # in a folder that counts as empty; folders made of GGUF files lie in the latter
INSTALL = "python -m venv .venv && .venv/bin/python -m pip install -r requirements.txt"
EXAMPLE = {"prompt": "The capital of Atlantis is", "target": "Poseidonia"}


def write_project(folder: Path, model: str) -> list[Path]:
    """Write a project for the model into a new or empty folder, all files or none; their paths.

    Raises InputError where the folder holds anything but `.git` and `.cache`, or the model cannot be found.
    """
    present = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if folder.exists() and (not folder.is_dir() or set(present) - ALLOWED):
        raise InputError(f"'{folder}' is not an empty folder; name a new one: factpatch init DIR --model {model}")
    source = check_source(model)
    local = Path(source).is_dir()
    path = os.path.abspath(model) if local else source  # a GGUF file as itself: the folder made of it may go
    texts = {
        target: render_template(
            template,
            checkout=False,
            local=local,
            model=path,
            dtype=configured_dtype(source),
            name=folder.resolve().name,
            version=version("factpatch"),
            install=INSTALL,
            **EXAMPLE,
        )
        for template, target in PROJECT_FILES.items()
    }
    made = folder / ".new" if folder.exists() else folder  # where a shell stands, the folder itself must stay
    with new_folder(made) as temporary:
        for target, text in texts.items():
            (temporary / target).parent.mkdir(parents=True, exist_ok=True)
            (temporary / target).write_text(text, encoding="utf-8")
    if made != folder:
        for entry in list(made.iterdir()):
            shutil.move(entry, folder / entry.name)
        made.rmdir()
    return [folder / target for target in texts]


def render_template(template: str, **values: Any) -> str:
    """A file of a project. In templates `[[ ]]` holds values, as GitHub and Prefect mean something else by braces."""
    environment = Environment(
        loader=PackageLoader("factpatch.project"),
        undefined=StrictUndefined,
        variable_start_string="[[",
        variable_end_string="]]",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(f"{template}.j2").render(values)


def configured_dtype(source: str) -> str:
    """The precision that the model's configuration names, as the settings spell it."""
    try:
        config = AutoConfig.from_pretrained(source, local_files_only=local_only(source))
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"model '{source}' has no configuration that can be read: {reason}") from error
    name = str(config.dtype or "").removeprefix("torch.")
    return name if name in ("float32", "bfloat16", "float16") else ModelSettings().dtype
