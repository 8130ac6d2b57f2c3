"""Kronecker factors of the curvature at located matrices, measured on rows or on the model's own text.

Of every position that predicts a target token the second moments are taken of what a matrix reads and of the gradient,
at what it writes, of the summed loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from factpatch.disk_cache import read_cached
from factpatch.errors import InputError, RefusedError
from factpatch.files import digest_value, new_file, output_folder
from factpatch.methods.curvature import KroneckerFactors
from factpatch.models.batches import in_batches
from factpatch.models.encoding import Encoded, padding_id
from factpatch.models.forward import Batch, collate, predict_whole, token_losses
from factpatch.models.linear import is_projection, is_transposed, owner_of
from factpatch.models.loading import LoadedModel, fingerprint, known_digests, tensor_digest
from factpatch.models.locations import Location
from factpatch.models.sampling import sample_ids

TEXTS, TOKENS = 128, 64  # of the model's own, and at most of each
BATCH_ROWS = 16  # of a pass
CURVATURE_VERSION = "1"  # of the files; another number never reads these
CURVATURE_FILE = "curvature.safetensors"

Factors = dict[str, KroneckerFactors]  # by the name of the parameter


def curvature_of_own_text(loaded: LoadedModel, location: Location, folder: str | None) -> Factors:
    """Factors on texts that the model draws itself, from `folder` where an earlier run left them there.

    On such text the gradients of its own tokens give the Fisher information, and that is the Gauss-Newton curvature of
    the divergence from the model.
    """
    refuse_uncurved(loaded.model, location)
    path = Path(folder) / _digest(loaded, location) / CURVATURE_FILE if folder else None
    if path and (kept := read_cached(path, lambda path: _read(path, location, loaded.model.device))):
        return kept
    end = loaded.tokenizer.eos_token_id
    texts = dict.fromkeys(sample_ids(loaded, [(end,)] * TEXTS, 0, TOKENS))
    found = curvature_of_rows(loaded, location, [Encoded((end, *ids), 1) for ids in texts])
    if path:
        _write(path, found)
    return found


def curvature_of_rows(loaded: LoadedModel, location: Location, rows: Sequence[Encoded]) -> Factors:
    """Factors over the target tokens of the rows, with the model's present values."""
    modules = refuse_uncurved(loaded.model, location)
    totals = {name: _zeros(loaded.model.get_parameter(name)) for name in modules}
    tokens = 0
    ordered = sorted(rows, key=lambda row: len(row.ids))
    for batch, found in in_batches(lambda part: _batch_sums(loaded, modules, part), ordered, BATCH_ROWS):
        tokens += sum(len(row.ids) - row.prompt_length for row in batch)
        for name, sums in found.items():
            for total, own in zip(totals[name], sums, strict=True):
                total += own
    return {
        name: KroneckerFactors(rows_RR / tokens, columns_CC / tokens, tokens)
        for name, (rows_RR, columns_CC) in totals.items()
    }


def refuse_uncurved(model: PreTrainedModel, location: Location) -> dict[str, nn.Module]:
    """The projection that each located parameter belongs to; InputError for one that is none, such as experts."""
    modules = {name: owner_of(model, name) for name in location.parameters}
    for name, module in modules.items():
        if not is_projection(module):
            raise InputError(
                f"location '{location.name}': curvature is measured at plain projections, and {name} is none; choose "
                "another location or training method"
            )
    return modules


def _zeros(parameter: nn.Parameter) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = (torch.zeros(size, size, device=parameter.device) for size in parameter.shape)
    return rows, columns


def _batch_sums(
    loaded: LoadedModel, modules: dict[str, nn.Module], rows: Sequence[Encoded]
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Sums over the rows' target tokens: of products along the rows and along the columns of each matrix."""
    batch = collate(rows, padding_id(loaded.tokenizer), loaded.model.device)
    read: dict[str, torch.Tensor] = {}
    written: dict[str, torch.Tensor] = {}

    def note(name: str, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        read[name] = inputs[0].detach()
        written[name] = output if output.requires_grad else output.requires_grad_(True)

    with ExitStack() as hooks, torch.enable_grad():
        for name, module in modules.items():
            hooks.callback(module.register_forward_hook(partial(note, name)).remove)
        loss = token_losses(predict_whole(loaded.model, batch)).sum()
        gradients = torch.autograd.grad(loss, list(written.values()))
    found = {}
    for (name, module), gradient in zip(((name, modules[name]) for name in written), gradients, strict=True):
        read_PI, slope_PO = _predicting(read[name], batch), _predicting(gradient, batch)
        row_side, column_side = (read_PI, slope_PO) if is_transposed(module) else (slope_PO, read_PI)
        found[name] = (row_side.T @ row_side, column_side.T @ column_side)
    return found


def _predicting(values_BTW: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The values where a target token is predicted, one position's after the other's."""
    return values_BTW[:, -batch.target_BK.shape[1] :][batch.target_mask_BK].float()


def _digest(loaded: LoadedModel, location: Location) -> str:
    """Names everything that the model's own text and its curvature depend on."""
    config = loaded.model.config.to_json_string(use_diff=False)
    model = (fingerprint(known_digests(loaded.model)), str(loaded.model.dtype), loaded.model.device.type, config)
    text = (TEXTS, TOKENS, loaded.tokenizer.eos_token_id)
    return digest_value([CURVATURE_VERSION, *model, *text, *location.parameters])


def _write(path: Path, factors: Factors) -> None:
    tensors = {f"{name} rows": own.rows_RR.cpu() for name, own in factors.items()}
    tensors |= {f"{name} columns": own.columns_CC.cpu() for name, own in factors.items()}
    about = {"tokens": str(next(iter(factors.values())).tokens), "sha256": _content(tensors)}
    try:
        output_folder(path.parent)
        with new_file(path) as temporary:
            save_file(tensors, temporary, about)
    except (OSError, SafetensorError, InputError) as error:
        raise RefusedError(
            f"the curvature cannot be kept in '{path.parent}' ({error}); make room or name another trunk.folder"
        ) from error


def _read(path: Path, location: Location, device: torch.device) -> Factors:
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    tensors = load_file(path)
    if _content(tensors) != about["sha256"]:
        raise ValueError("its content is not what was written")
    tokens = int(about["tokens"])
    found = {}
    for name in location.parameters:
        rows_RR, columns_CC = (tensors[f"{name} {side}"].to(device) for side in ("rows", "columns"))
        found[name] = KroneckerFactors(rows_RR, columns_CC, tokens)
    return found


def _content(tensors: dict[str, torch.Tensor]) -> str:
    return digest_value({name: tensor_digest(tensor) for name, tensor in tensors.items()})
