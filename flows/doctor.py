"""What must hold on this machine before any work: each check says what it found, or raises with the fault and its cure.

`factpatch doctor` prints all of them; other verbs make those that they need, silently, before they begin. None imports
torch or MLflow, and Prefect's settings are read only where a flow is about to run.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from factpatch.addresses import sqlite_file, without_password
from factpatch.errors import FactpatchError, InputError
from factpatch.methods.lookup import find_method
from factpatch.preflight.environment import user_name
from factpatch.release.registry import reaching, tracking_uri
from factpatch.settings.config import Settings
from flows.console import check_prefect, printable

RELEASE_PACKAGES = ("prefect", "mlflow", "dvc", "great_expectations", "lm_eval", "pandas", "accelerate")
FORM_LIBRARIES = {  # forms that need one: the module, and the extra that brings it
    "nf4": ("bitsandbytes", "bitsandbytes"),
    "awq": ("auto_round", "awq"),
}
LEAST_ROOM = 32 * 2**20  # bytes free, below which a disk counts as full
MachineCheck = Callable[[Settings, Path], str]


def check_packages(settings: Settings, output: Path) -> str:
    """Those of the extra `release`."""
    missing = [name for name in RELEASE_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"{', '.join(missing)} not installed; run: pip install 'factpatch[release]'")
    found = (f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "prefect", "mlflow", "dvc"))
    return f"Python {platform.python_version()}, {', '.join(found)}"


def check_method(settings: Settings, output: Path) -> str:
    """The training method, which another package may bring."""
    return find_method(settings.training.method).name


def check_formats(settings: Settings, output: Path) -> str:
    """What measuring in the forms that are served needs."""
    formats = settings.serving.formats
    for form, (module, extra) in FORM_LIBRARIES.items():
        if form in formats and importlib.util.find_spec(module) is None:
            told = f"serving.formats names {form}, which needs {module.replace('_', '-')}"
            raise InputError(f"{told}; run: pip install 'factpatch[{extra}]', or leave it out")
    return ", ".join(formats) or "none is named"


def check_home(settings: Settings, output: Path) -> str:
    """Where libraries look for settings and keep caches."""
    try:
        return f"{Path.home()}, user {user_name()}"
    except RuntimeError as error:
        told = f"HOME is not set, and the system knows no home of {user_name()}; set HOME to a folder you can write"
        raise InputError(told) from error


def check_hub(settings: Settings, output: Path) -> str:
    """Hugging Face's folder, where the model or the edits come from the hub."""
    away = [name for name in (settings.model.path, settings.edits.path) if name and not Path(name).exists()]
    return _check_hub_folder() if away else "nothing comes from the hub"


def check_tasks(settings: Settings, output: Path) -> str:
    """The same folder, where capability tasks are read through `datasets`."""
    return "none" if settings.capability.tasks == () else _check_hub_folder()


def _check_hub_folder() -> str:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    place = Path(os.environ.get("HF_HOME") or Path(cache) / "huggingface").expanduser()
    _check_writable(place, "of Hugging Face", "set HF_HOME (or HOME) to a folder you can write")
    return str(place)


def check_temporary(settings: Settings, output: Path) -> str:
    """The folder for temporary files, which whole models pass through."""
    try:
        place = Path(tempfile.gettempdir())
    except OSError as error:
        raise InputError("no folder for temporary files can be written; set TMPDIR to one that can") from error
    _check_room(place, "set TMPDIR to a folder with more")
    return str(place)


def check_folders(settings: Settings, output: Path) -> str:
    """The output, and what is kept for later runs."""
    _check_writable(output, "for results", "choose another --output")
    _check_room(output, "free some, or choose another --output")
    for name, place in _kept(settings):
        _check_writable(Path(place), f"of {name}", f"set {name} to one that can, or to null")
    return str(output.absolute())


def check_registry(settings: Settings, output: Path) -> str:
    """MLflow's store, whether it can be written, and what its address needs."""
    uri = tracking_uri(settings.registry)
    with reaching(uri):
        scheme = urlsplit(uri).scheme
    if scheme in ("", "file") and not os.environ.get("MLFLOW_ALLOW_FILE_STORE"):
        told = f"MLflow keeps no registry in plain files any more ('{uri}')"
        raise InputError(f"{told}; name a database, such as sqlite:///mlruns/mlflow.db")
    if file := sqlite_file(uri):
        cure = "mend its rights, or set MLFLOW_TRACKING_URI"
        for path in (file, file.parent / "artifacts", file.parent / "locks"):
            _check_writable(path, "of MLflow", cure)
        _check_room(file, cure)
    elif scheme not in ("", "file", "http", "https"):
        _check_driver(uri)
    if os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT", "").startswith("s3:") and not importlib.util.find_spec("boto3"):
        raise InputError("boto3 is not installed, which artifacts in S3 need; run: pip install 'factpatch[stores]'")
    return without_password(uri)


def _check_driver(uri: str) -> None:
    import sqlalchemy

    try:
        sqlalchemy.make_url(uri).get_dialect().import_dbapi()
    except (ImportError, sqlalchemy.exc.ArgumentError) as error:
        reason = " ".join(str(error).split())
        cure = "run: pip install 'factpatch[stores]', and name its driver as in postgresql+psycopg2://..."
        raise InputError(f"MLflow at '{without_password(uri)}' cannot be opened ({reason}); {cure}") from error


def check_server(settings: Settings, output: Path) -> str:
    """Prefect's server, or the folder of the temporary one."""
    home = check_prefect()
    if home is None:
        return os.environ["PREFECT_API_URL"]
    cure = "set PREFECT_HOME (or HOME) to a folder you can write, or PREFECT_API_URL to a server"
    if not home.parent.is_dir():  # Prefect makes one folder, and not those above it
        raise InputError(f"folder '{home}' of Prefect cannot be made, as '{home.parent}' does not exist; {cure}")
    _check_writable(home, "of Prefect", cure)
    _check_writable(home / "prefect.db", "of Prefect", cure)
    _check_room(home, cure)
    return f"a temporary one, in {home}"


def check_lineage(settings: Settings, output: Path) -> str:
    """DVC's remote, where the output lies in a repository that has one."""
    folder = output.absolute()
    if not any((place / ".dvc").is_dir() for place in (folder, *folder.parents)):
        return "the output folder gets a repository of its own"
    from tasks.lineage import check_remote

    return check_remote(folder) or "a repository without a remote"


def check_git(settings: Settings, output: Path) -> str:
    """Whether git tells which state of the ledger is released."""
    folder = Path(settings.edits.path).absolute().parent
    if shutil.which("git") is None:
        return "not installed: releases do not record the ledger's revision"
    if not folder.is_dir():
        return "no ledger here"
    command = ["git", "-C", str(folder), "rev-parse", "--show-toplevel"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    if "dubious ownership" in done.stderr:
        place = next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), folder)
        cure = shlex.join(["git", "config", "--global", "--add", "safe.directory", str(place)])
        raise InputError(f"git does not read '{place}', which belongs to somebody else; run: {cure}")
    return done.stdout.strip() or "the ledger is not under version control"


def check_processes(settings: Settings, output: Path) -> str:
    """What several processes at once need."""
    if settings.localization.workers == 1:
        return "one process"
    try:
        import multiprocessing.synchronize

        multiprocessing.get_context("spawn").Semaphore()
    except (ImportError, OSError) as error:  # no /dev/shm, as in some containers
        told = f"processes cannot share semaphores ({error}); mount /dev/shm, or set localization.workers to 1"
        raise InputError(told) from error
    return f"{settings.localization.workers} processes"


CHECKS: dict[str, MachineCheck] = {
    "packages": check_packages,
    "training method": check_method,
    "serving formats": check_formats,
    "home": check_home,
    "temporary files": check_temporary,
    "folders": check_folders,
    "hub": check_hub,
    "capability tasks": check_tasks,
    "processes": check_processes,
    "git": check_git,
    "DVC": check_lineage,
    "MLflow": check_registry,
    "Prefect": check_server,
}
REGISTRY = ("packages", "home", "temporary files", "MLflow")
STEP = ("packages", "home", "temporary files", "folders", "hub")
NEEDS: dict[str, tuple[str, ...]] = {  # of each verb
    "run": tuple(CHECKS),
    "release": tuple(name for name in CHECKS if name != "Prefect"),  # of the flow, which a worker may have started
    "monitor": (*STEP, "MLflow", "Prefect"),
    **dict.fromkeys(("validate", "probes", "localize"), STEP),
    "evaluate": ("serving formats", *STEP),
    "edit": ("training method", *STEP),
    "regress": (*STEP, "capability tasks"),
    **dict.fromkeys(("promote", "rollback", "history", "export", "serving"), REGISTRY),
    "serve": ("packages", "home", "temporary files", "MLflow"),
}


def check_machine(verb: str, settings: Settings, output: str = ".") -> None:
    """InputError or UnavailableError, with the cure, for the first thing that would stop the verb later."""
    for name in NEEDS[verb]:
        CHECKS[name](settings, Path(output))


def examine(settings: Settings, output: str) -> int:
    """Print every check, one a line; 2 if something stands in the way of a release, else 0."""
    faults = 0
    for name, check in CHECKS.items():
        try:
            state, told = "ok", check(settings, Path(output))
        except FactpatchError as error:
            state, told = "fault", str(error)
            faults += 1
        print(f"{state:<6} {name:<17}{printable(told)}")
    print(f"{faults} faults" if faults != 1 else "1 fault", "in the way of a release")
    return 2 if faults else 0


def _kept(settings: Settings) -> Iterator[tuple[str, str]]:
    """The folders that settings name for what later runs use again."""
    for section, key in (
        ("trunk", "folder"),
        ("localization", "cache"),
        ("evaluation", "cache"),
        ("capability", "cache"),
        ("judge", "cache"),
    ):
        if place := getattr(getattr(settings, section), key):
            yield f"{section}.{key}", place


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(place for place in (path, *path.parents) if place.exists())


def _check_writable(path: Path, whose: str, cure: str) -> None:
    try:
        place = _existing(path.absolute())
        allowed = os.access(place, os.W_OK | os.X_OK if place.is_dir() else os.W_OK)
    except OSError as error:  # the folder where this process stands is gone, or may not be looked into
        raise InputError(f"folder '{path}' {whose} cannot be found ({error.strerror}); {cure}") from error
    if not allowed or (place != path.absolute() and not place.is_dir()):
        raise InputError(f"'{path}' {whose} cannot be written; {cure}")


def _check_room(path: Path, cure: str) -> None:
    place = _existing(path.absolute())
    disk = shutil.disk_usage(place)
    if disk.total and disk.free < LEAST_ROOM:
        raise InputError(f"the disk of '{place}' is full ({disk.free / 2**20:.0f} MB free); {cure}")
