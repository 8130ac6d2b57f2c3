"""What versions cost in the registry: bytes and seconds of `register`, as patches and as whole models.

    python -m benchmarks.registry_size runs/latest --model data/model --versions 200

Registers a finished run's output folder again and again into a store of its own, without the gate that asks the
registry's model (`gates.reload: 0`), then asks for the history, rolls back, and exports the first version.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from factpatch.files import read_json, write_json
from factpatch.settings.config import Settings, load_settings
from integrations.mlflow_registry import export_version
from tasks.promote import promote, read_history, rollback
from tasks.register import register


def main() -> None:
    """A line for each way to store, and how long it takes to use many versions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", help="folder of a finished run")
    parser.add_argument("--model", required=True)
    parser.add_argument("--versions", type=int, default=2)
    args = parser.parse_args()
    for store in ("patch", "model"):
        with TemporaryDirectory(dir=".") as place:
            settings = load_settings(
                overrides={
                    "model.path": args.model,
                    "registry.store": store,
                    "registry.tracking_uri": f"sqlite:///{Path(place).resolve() / 'mlflow.db'}",
                    "gates.reload": 0,
                }
            )
            output = Path(shutil.copytree(args.output, Path(place) / "output"))
            count = args.versions if store == "patch" else min(args.versions, 2)
            seconds = register_often(output, settings, count)
            stored = size(Path(place) / "artifacts")
            print(
                f"{store}: {count} versions, {stored / count / 1e6:.2f} MB and {seconds / count:.2f} s each", flush=True
            )
            if store == "patch":
                use(settings, Path(place) / "exported")


def register_often(output: Path, settings: Settings, count: int) -> float:
    """Register the release so many times, each as another; seconds of all but the first, which makes the tables."""
    spent = 0.0
    for number in range(count):
        value = read_json(output / "evaluate.json")
        write_json(output / "evaluate.json", {**value, "seconds": value["seconds"] + 1})
        start = time.perf_counter()
        register.fn(str(output), settings)
        spent += time.perf_counter() - start if number else 0.0
    return spent * count / max(count - 1, 1)


def use(settings: Settings, output: Path) -> None:
    """Seconds of what is done with versions."""
    registry = settings.registry
    release = read_json(output.parent / "output" / "release.json")
    if release["status"] == "refused":
        print("refused by its gates, so none is promoted", flush=True)
        return
    for version in ("1", release["version"]):
        promote(registry, version, "benchmark", "timed")
    for name, work in (
        ("history", lambda: read_history(registry)),
        ("rollback", lambda: rollback(registry, "benchmark", "timed")),
        ("export of version 1", lambda: export_version(registry, "1", output, settings.model.path)),
    ):
        start = time.perf_counter()
        work()
        print(f"{name}: {time.perf_counter() - start:.2f} s", flush=True)


def size(folder: Path) -> int:
    """Bytes of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
