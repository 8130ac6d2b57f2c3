"""`factpatch serving`: what is champion in each form and where it is, and a vLLM server that follows it.

A server that runs with VLLM_ALLOW_RUNTIME_LORA_UPDATING takes and drops adapters while it serves. The verb may be
repeated by whoever tells of a new champion (a schedule, a webhook): it does nothing where the server has it already.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factpatch.addresses import without_password
from factpatch.errors import InputError
from factpatch.settings.config import Settings, load_settings
from flows.console import printable
from flows.delivery import Overrides, Wanted, export_as
from flows.doctor import check_machine

if TYPE_CHECKING:
    from integrations.mlflow_registry import ReleasedVersion

SECONDS_TO_LOAD = 120.0  # that a server may take to load an adapter


def serving(args: argparse.Namespace, overrides: Overrides) -> int:
    """Print where the champion is in each form; with `--vllm`, have that server load its adapter."""
    from integrations.mlflow_registry import read_version

    settings = load_settings(args.config, overrides)
    if (args.vllm is None) != (args.adapters is None):
        raise InputError("--vllm ADDRESS and --adapters DIR belong together: the server reads its adapters there")
    check_machine("serving", settings)
    found = read_version(settings.registry, "champion")
    print("\n".join(describe_serving(settings, found)))
    if args.vllm is not None:
        print(follow(settings, found, args.vllm.rstrip("/").removesuffix("/v1"), Path(args.adapters)))
    return 0


def describe_serving(settings: Settings, found: ReleasedVersion) -> list[str]:
    """A line for each form of the champion: its address, or the command that makes it, or why it is not released."""
    name, number, base = settings.registry.name, found.number, found.release["base"]
    lines = [
        f"champion  version {number} of {name}",
        f"base      {base['source']} (fingerprint {base['fingerprint'][:12]})",
        f"stored    {without_password(found.source)}/artifacts",
        f"mlflow    models:/{name}@champion",
        f"model     factpatch export --version {number} --output DIR",
    ]
    forms: dict[str, Any] = found.release.get("serving") or {}
    for form, measured in forms.items():
        if measured["released"]:
            value = measured["reliability"]["value"]
            lines.append(f"{form:<8}  released, reliability {value:.1%}: {_command(form, number)}")
        else:
            told = " ".join(gate["reason"] for gate in measured["gates"] if gate["verdict"] in ("failed", "undecided"))
            lines.append(f"{form:<8}  not released: {told}")
    return [printable(line) for line in lines]


def _command(form: str, number: str) -> str:
    """How a form of a version is made."""
    export = f"factpatch export --version {number}"
    if form == "peft":
        return f"{export} --format peft --output DIR"
    if form == "bf16":
        return f"{export} --output DIR"
    return f"{export} --format gguf --base FILE.gguf --output NEW.gguf, of a file of that kind"


def follow(settings: Settings, found: ReleasedVersion, server: str, adapters: Path) -> str:
    """Make the champion's adapter in a folder that the server reads too, and have it serve that under the model's
    name, in place of an earlier one; what was done, in a line."""
    from factpatch.evaluation.endpoint import expecting, fetch, open_client, post

    name = settings.registry.name
    folder = (adapters / f"{name}-{found.number}").resolve()
    if not folder.exists():
        export_as(settings, Wanted(folder, found.number, format="peft"))
    with open_client(SECONDS_TO_LOAD) as client:
        with expecting(server):
            serves = {row["id"]: row.get("root") for row in fetch(client, f"{server}/v1/models")["data"]}
        if serves.get(name) == str(folder):
            return f"{without_password(server)} serves version {found.number} as '{name}' already"
        if name in serves:
            post(client, f"{server}/v1/unload_lora_adapter", {"lora_name": name})
        post(client, f"{server}/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
    return f"{without_password(server)} serves version {found.number} as '{name}' now"
