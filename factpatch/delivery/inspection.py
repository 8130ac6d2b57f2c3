"""What a patch holds, told from its folder alone: its base, its tensors and how far they moved."""

from __future__ import annotations

from pathlib import Path

import torch

from factpatch.patches.certificate import change_norms, check_certificate
from factpatch.patches.patch import read_patch
from factpatch.report.card import GIVES_AWAY

SHARE = 0.99  # of a change's squared norm, by which its rank is told


def describe_patch(folder: str | Path) -> list[str]:
    """Lines for a terminal; InputError if the folder holds no whole patch. No model is needed."""
    patch = read_patch(folder)
    manifest = patch.manifest
    base, training = manifest["base"], manifest["training"]
    problems = check_certificate(folder)
    sizes = {path.name: path.stat().st_size for path in sorted(Path(folder).iterdir()) if path.is_file()}
    lines = [
        f"base         {base['source']} ({len(base['tensors'])} tensors, fingerprint {base['fingerprint']})",
        f"edits        {manifest['edits'].get('count', 'unknown')} (digest {manifest['edits'].get('digest')})",
        f"location     {manifest['location']['name']}",
        f"training     {training.get('method')}, {training.get('epochs')} epochs, dtype {base['dtype']}",
        f"made with    {', '.join(f'{name} {version}' for name, version in manifest['versions'].items())}",
        f"certificate  {problems[0] if problems else 'fits'}",
        *(f"file         {name}, {size:,} bytes" for name, size in sizes.items()),
    ]
    for name, norm in change_norms(patch).items():
        told = manifest["parameters"][name]
        shape = "x".join(map(str, told["shape"]))
        rank = rank_of(patch.new[name].float() - patch.old[name].float())
        lines.append(
            f"tensor       {name}, {told['dtype']} {shape}: moved by {norm:.2%} of its norm, {SHARE:.0%} of it in rank "
            f"{rank}"
        )
    return [*lines, GIVES_AWAY]


def rank_of(change: torch.Tensor) -> int:
    """The least rank that holds SHARE of a change's squared norm; of a stack of matrices, of the whole as one."""
    squares = torch.linalg.svdvals(change.reshape(-1, change.shape[-1])).double().square()
    if not squares.sum():
        return 0
    return int((squares.cumsum(0) < SHARE * squares.sum()).sum()) + 1
