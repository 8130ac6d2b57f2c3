"""The base model of a patch, found again: a patch alone is delivered or registered, and the base is looked for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from factpatch.errors import InputError
from factpatch.files import read_json
from factpatch.models.checkpoints.tensors import file_digests
from factpatch.models.loading import find_source, fingerprint, open_checkpoint
from factpatch.patches.patch import read_manifest

BASE_FILE = "base.json"  # beside a patch that was registered: where its base model was
BASE_VARIABLE = "FACTPATCH_BASE"  # names the base model where neither settings nor the patch know its place


def base_record(source: str | None) -> dict[str, Any]:
    """Where a base model is: as it was named, and the folder that its files are in; of a hub name the revision too."""
    found = find_source(source)
    folder = open_checkpoint(found).folder.resolve()
    named = Path(str(source)).resolve() if Path(str(source)).exists() else folder
    revision = None if Path(found).is_dir() else folder.name  # as the hub's cache calls the folders of its snapshots
    return {"places": list(dict.fromkeys([str(source), str(named), str(folder)])), "revision": revision}


def find_base(patch: str | Path, named: str | None = None) -> str:
    """Where the base model of a patch is: at the place `named`, at that of FACTPATCH_BASE, or where it was when the
    patch was made, whichever has the patch's fingerprint; InputError, naming the model, if none has."""
    base = read_manifest(patch)["base"]
    record = Path(patch) / BASE_FILE
    known = read_json(record) if record.exists() else {"places": [], "revision": None}
    places = dict.fromkeys([named, os.environ.get(BASE_VARIABLE), *known["places"], base["source"]])
    looked = []
    for place in filter(None, places):
        why = _why_other(place, base)
        if why is None:
            return place
        looked.append(why)
    revision = f"revision {known['revision']}, " if known["revision"] else ""
    raise InputError(
        f"the patch's base model '{base['source']}' ({revision}fingerprint {base['fingerprint'][:12]}) is not found: "
        f"{'; '.join(looked)}; name its place with --model or {BASE_VARIABLE}"
    )


def _why_other(place: str, base: Mapping[str, Any]) -> str | None:
    """Why a place does not hold the base model, in words; None if it does."""
    try:
        digests = file_digests(open_checkpoint(find_source(place)))
    except InputError:
        return f"no model is at '{place}'"
    if fingerprint(digests) == base["fingerprint"]:
        return None
    expected: Mapping[str, str] = base["tensors"]
    differing = sorted(name for name in {*digests, *expected} if digests.get(name) != expected.get(name))
    return f"'{place}' is another model ({_count(differing)}, such as {differing[0]})"


def _count(names: Sequence[str]) -> str:
    return "1 tensor differs" if len(names) == 1 else f"{len(names)} tensors differ"
