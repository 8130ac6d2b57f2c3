"""How an edited model answers in the forms in which it will be served, each compared with the base in that form.

What a form rounds away is put in place of every matrix, in memory: the values that a bf16 checkpoint, a GGUF file of
that kind, bitsandbytes' NF4 or a checkpoint of GPTQ or AWQ would give back, or those of a LoRA beside the base.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from factpatch.delivery.asking import facts_of
from factpatch.delivery.calibrated import CALIBRATED, calibrated_values, calibration_rows
from factpatch.delivery.low_rank import RANKS, loss
from factpatch.delivery.nf4 import nf4_rows
from factpatch.delivery.peft_adapter import adapter_rank, changed_spectra, low_rank_values
from factpatch.delivery.quantizing import rounded
from factpatch.edits.request import EditRequest
from factpatch.errors import RefusedError
from factpatch.evaluation.evaluate import Answers, collect_answers, measure
from factpatch.models.linear import is_transposed, owner_of
from factpatch.models.loading import LoadedModel, preserved, write_values
from factpatch.models.locations import decoder_blocks, roles
from factpatch.patches.patch import Patch, new_values
from factpatch.progress import Report
from factpatch.settings.config import Settings

MEASURED = ("reliability", "generalization", "locality", "locality_content")
Kinds = Callable[[str], GGMLQuantizationType]
Q4_K, Q5_K, Q6_K, Q8_0, F16 = (GGMLQuantizationType[name] for name in ("Q4_K", "Q5_K", "Q6_K", "Q8_0", "F16"))
INSTEAD = {  # of types that rows of the matrix cannot have, as llama.cpp chooses
    Q4_K: GGMLQuantizationType.Q5_0,
    Q5_K: GGMLQuantizationType.Q5_1,
    Q6_K: Q8_0,
}


def measure_formats(
    loaded: LoadedModel,
    edits: Sequence[EditRequest],
    settings: Settings,
    patch: Patch,
    measured: Mapping[str, Any],
    progress: Report | None = None,
) -> dict[str, dict[str, Any]]:
    """What `evaluate.json` holds under `formats`: for each of `serving.formats` the metrics of MEASURED.

    `measured` is the value of `evaluate.json` as it is, with what the patch was measured to hold. The model is left as
    found; meanwhile its weights are held twice.
    """
    found: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(settings.serving.formats):
        if progress:
            progress(number, len(settings.serving.formats), name)
        start = time.perf_counter()
        value = _measure(loaded, edits, settings, patch, measured, name)
        found[name] = value | {"seconds": round(time.perf_counter() - start, 3)}
    return found


def _measure(
    loaded: LoadedModel,
    edits: Sequence[EditRequest],
    settings: Settings,
    patch: Patch,
    measured: Mapping[str, Any],
    name: str,
) -> dict[str, Any]:
    if name in CALIBRATED:
        return _measure_calibrated(loaded, edits, settings, patch, name)
    if name == "peft":
        values, about = _with_adapter(loaded, settings, patch, measured)
        served, rounding = None, tuple(values)
    else:
        served, rounding, about = serving_values(loaded, name), _matrices(loaded), {}
        values = {own: served(own, value) for own, value in new_values(loaded, patch).items()}
    with preserved(loaded.model, rounding):
        if served is not None:
            for own in rounding:
                write_values(loaded.model, {own: served(own, loaded.model.get_parameter(own))})
        before = collect_answers(loaded, edits, settings)
        write_values(loaded.model, values)
        after = collect_answers(loaded, edits, settings, before)
    return _scores(edits, after, before, settings) | about


def _measure_calibrated(
    loaded: LoadedModel, edits: Sequence[EditRequest], settings: Settings, patch: Patch, name: str
) -> dict[str, Any]:
    """Base and edited model are quantized each by itself, by the same texts of the base model: so is an edited
    checkpoint that goes to a quantizer before it is served."""
    rows = calibration_rows(loaded, settings.training.seed)
    base = calibrated_values(loaded, name, rows)
    with preserved(loaded.model, tuple(base)):
        write_values(loaded.model, new_values(loaded, patch))
        edited = calibrated_values(loaded, name, rows)
        write_values(loaded.model, base)
        before = collect_answers(loaded, edits, settings)
        write_values(loaded.model, edited)
        after = collect_answers(loaded, edits, settings, before)
    return _scores(edits, after, before, settings)


def _scores(edits: Sequence[EditRequest], after: Answers, before: Answers, settings: Settings) -> dict[str, Any]:
    scores = measure(edits, after, before, settings.evaluation.protocol)
    return {metric: scores[metric] for metric in MEASURED}


def _with_adapter(
    loaded: LoadedModel, settings: Settings, patch: Patch, measured: Mapping[str, Any]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The located parameters beside the adapter that would be exported, and its rank and loss. Where facts are lost at
    every rank it is that of the largest."""
    spectra, facts = changed_spectra(loaded, patch), facts_of(measured["edits"])
    rank, trained = RANKS[-1], patch.manifest["config"]["training"].get("rank")
    if facts:
        with suppress(RefusedError):
            rank = adapter_rank(loaded, spectra, facts, settings, trained)
    return low_rank_values(loaded, spectra, rank), {"rank": rank, "loss": loss(spectra.values(), rank)}


def serving_values(loaded: LoadedModel, name: str) -> Callable[[str, torch.Tensor], torch.Tensor]:
    """Gives for a matrix's name and values what a form (`bf16`, `q8_0`, `q4_k_m`, …) makes of them, in their dtype."""
    if name == "bf16":
        return lambda _, value: value.detach().bfloat16().to(value.dtype)
    given_back = nf4_rows(loaded) if name == "nf4" else _gguf_rows(loaded, name)

    def served(own: str, value: torch.Tensor) -> torch.Tensor:
        turned = value.ndim > 1 and is_transposed(owner_of(loaded.model, own))  # rows are columns
        made = given_back(own, value.detach().T if turned else value.detach())
        return (made.T if turned else made).to(value)

    return served


def _gguf_rows(loaded: LoadedModel, name: str) -> Callable[[str, torch.Tensor], torch.Tensor]:
    """Gives for a matrix's name and rows what a GGUF file of that kind makes of them."""
    kinds: Kinds = _mixture(loaded) if name == "q4_k_m" else lambda _: GGMLQuantizationType[name.upper()]

    def given_back(own: str, rows: torch.Tensor) -> torch.Tensor:
        kind = _fitting(kinds(own), rows.shape[-1])
        return torch.from_numpy(rounded(rows.float().cpu().numpy(), kind, own))

    return given_back


def _matrices(loaded: LoadedModel) -> tuple[str, ...]:
    """The names of all parameters that such files quantize."""
    return tuple(name for name, parameter in loaded.model.named_parameters() if parameter.ndim > 1)


def _mixture(loaded: LoadedModel) -> Kinds:
    """The types that llama.cpp gives to the tensors of a Q4_K_M file: more bits for the output, and for the value and
    down projections of some layers."""
    model = loaded.model
    stack, blocks = decoder_blocks(model)
    count, last = len(blocks), model.get_output_embeddings()
    better = {
        f"{stack}.{layer}.{part}.weight": Q5_K if role == "qkv" else Q6_K
        for layer in range(count)
        for role, part in roles(model, layer).items()
        if role == "qkv" or (role in ("v", "down") and _favoured(layer, count))
    }
    output = [name for name, parameter in model.named_parameters() if last is not None and parameter is last.weight]
    better |= dict.fromkeys(output, Q6_K)
    return lambda name: better.get(name, Q4_K)


def _favoured(layer: int, count: int) -> bool:
    """The layers of which llama.cpp keeps more bits: the first and last eighth, and each third of those between."""
    eighth = count // 8
    return layer < eighth or layer >= 7 * count // 8 or (layer - eighth) % 3 == 2


def _fitting(kind: GGMLQuantizationType, columns: int) -> GGMLQuantizationType:
    """The type, or the one that takes its place where rows are no multiple of its blocks."""
    for chosen in (kind, INSTEAD.get(kind, F16)):
        if columns % GGML_QUANT_SIZES[chosen][0] == 0:
            return chosen
    return F16
