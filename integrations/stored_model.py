"""What a registered version stores to be loaded from: its patch and where the base model is, or the whole edited model.

`registry.store` says which. Either way MLflow can serve the version; of a patch, the base model is looked for then, and
checked.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from urllib.parse import urlsplit

import mlflow.pyfunc
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts, list_artifacts
from mlflow.entities import LoggedModel, LoggedModelOutput
from mlflow.models import Model

import factpatch
from factpatch.files import write_json
from factpatch.settings.config import ModelSettings, Settings

SCRIPT = Path(__file__).with_name("served_model.py")
REQUIREMENTS = ("mlflow", "torch", "transformers", "tokenizers", "safetensors", "jinja2", "pyyaml", "regex")


@dataclass(frozen=True)
class StoredModel:
    """Where a version's weights can be loaded from: a model, and the patch to apply to it (None: it is edited)."""

    model: str
    patch: Path | None


def log_model(client: MlflowClient, experiment: str, run: str, folder: Path, settings: Settings) -> LoggedModel:
    """Upload what the version is loaded from, with the script that serves it; no pickle."""
    model = client.create_logged_model(experiment, name="model", source_run_id=run)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".register.") as temporary:
        stored = _prepare(Path(temporary), folder / "patch", settings)
        mlflow.pyfunc.save_model(
            Path(temporary) / "mlflow",
            python_model=SCRIPT,
            artifacts={stored.name: str(stored)},
            code_paths=[str(Path(factpatch.__file__).parent)],
            # the local part of a version, such as torch's +cpu, is not on any index
            pip_requirements=[f"{name}=={installed(name).partition('+')[0]}" for name in REQUIREMENTS],
            model_config={
                "dtype": settings.model.dtype,
                "chat_template": settings.edits.chat_template,
                "protocol": settings.evaluation.protocol,
                "max_new_tokens": settings.evaluation.max_new_tokens,
                "batch_size": settings.evaluation.batch_size,
            },
            mlflow_model=Model(run_id=run, model_id=model.model_id),
        )
        client.log_model_artifacts(model.model_id, str(Path(temporary) / "mlflow"))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run, [LoggedModelOutput(model.model_id, step=0)])
    return model


def _prepare(temporary: Path, patch: Path, settings: Settings) -> Path:
    """The folder that is uploaded: `patch`, with a note where its base is, or `model`, the edited one."""
    from factpatch.patches.base import BASE_FILE, base_record
    from factpatch.patches.export import export_patch

    if settings.registry.store == "model":
        return export_patch(settings.model, patch, temporary / "model", link=True)
    stored = Path(shutil.copytree(patch, temporary / "patch"))
    write_json(stored / BASE_FILE, base_record(settings.model.path))
    return stored


def fetch_stored(source: str, uri: str, place: Path, named: str | None) -> StoredModel:
    """Fetch what a version is loaded from, found again by the address `source` of its artifacts.

    What lies on this machine is read there, else it is put into `place`. The base model of a patch is sought at `named`
    first. Raises InputError if it is not found.
    """
    if stored_patch := fetch_stored_patch(source, uri, place):
        from factpatch.patches.base import find_base

        return StoredModel(find_base(stored_patch, named), stored_patch)
    return StoredModel(_fetch(source, "model", uri, place), None)


def fetch_stored_patch(source: str, uri: str, place: Path) -> Path | None:
    """The patch that a version is loaded from; None where it stores the whole model. As in `fetch_stored`."""
    held = {Path(entry.path).name for entry in list_artifacts(artifact_uri=f"{source}/artifacts", tracking_uri=uri)}
    return Path(_fetch(source, "patch", uri, place)) if "patch" in held else None


def save_stored(stored: StoredModel, output: Path) -> None:
    """Write the edited model that a version stands for into an empty folder, as an ordinary model folder."""
    from factpatch.patches.export import export_patch

    if stored.patch is not None:
        made = export_patch(ModelSettings(path=stored.model), stored.patch, output / "model")
    else:
        made = Path(shutil.copytree(stored.model, output / "model"))
    for path in made.iterdir():
        path.rename(output / path.name)
    made.rmdir()


def _fetch(source: str, what: str, uri: str, place: Path) -> str:
    there = None if urlsplit(source).scheme == "file" else str(place)
    return str(download_artifacts(f"{source}/artifacts/{what}", dst_path=there, tracking_uri=uri))
