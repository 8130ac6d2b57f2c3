"""A patch as a LoRA adapter that `peft.PeftModel` and vLLM load beside the base model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from factpatch.delivery.asking import FactsHeld, ask_facts, least_rank, refuse_loss
from factpatch.delivery.card import adapter_card
from factpatch.delivery.low_rank import RANKS, Spectrum, check_rank, loss, spectrum
from factpatch.edits.request import EditRequest
from factpatch.errors import InputError
from factpatch.files import new_folder, write_text
from factpatch.models.linear import is_projection_weight, is_transposed
from factpatch.models.loading import LoadedModel, preserved, write_values
from factpatch.models.sources.adapter import ADAPTER_WEIGHTS
from factpatch.patches.patch import Patch, new_values
from factpatch.settings.config import Settings

PREFIX = "base_model.model."  # of the names in peft's files


@dataclass(frozen=True)
class Adapter:
    """An adapter that was written: its rank, what it leaves out of the change as a share, and what holds of it."""

    folder: Path
    rank: int
    loss: float
    held: FactsHeld

    def __str__(self) -> str:
        size = (self.folder / ADAPTER_WEIGHTS).stat().st_size
        return (
            f"{self.folder}: adapter of rank {self.rank}, {size / 1e6:.1f} MB, {self.loss:.2%} of the change left out; "
            f"{self.held}"
        )


def export_adapter(
    loaded: LoadedModel,
    patch: Patch,
    output: Path,
    facts: Sequence[EditRequest],
    settings: Settings,
    rank: int | None = None,
) -> Adapter:
    """Write a patch as an adapter of its base model, whole or not at all; the model is left as found.

    Without a `rank`, the smallest at which no fact is lost is taken, of RANKS and that which was trained at
    (`training.rank`), if it was. What was written is loaded by peft and asked before it takes its place.

    Raises:
        InputError: another base model, or a tensor that adapters cannot change; named.
        RefusedError: more facts are lost than `gates.reliability` allows, or any at every rank that was to be tried.
    """
    check_rank(rank)
    spectra = changed_spectra(loaded, patch)
    if rank is None:
        rank = adapter_rank(loaded, spectra, facts, settings, patch.manifest["config"]["training"].get("rank"))
    left = loss(spectra.values(), rank)
    with new_folder(output) as folder:
        _write(loaded, spectra, rank, folder)
        held = _asked_through_peft(loaded, folder, facts, settings)
        refuse_loss(f"an adapter of rank {rank}", held, settings, "ask for a larger --rank")
        write_text(folder / "README.md", adapter_card(patch, rank, left, held))
    return Adapter(output, rank, left, held)


def low_rank_values(loaded: LoadedModel, spectra: dict[str, Spectrum], rank: int) -> dict[str, torch.Tensor]:
    """The located parameters with changes of that rank, as an adapter makes the model compute with them."""
    values = {}
    for name, found in spectra.items():
        reading, writing = found.factors(rank)
        change, parameter = writing @ reading, loaded.model.get_parameter(name)
        change = change.T if _transposed(loaded, name) else change
        values[name] = (parameter.detach().float().cpu() + change).to(parameter.dtype)
    return values


def changed_spectra(loaded: LoadedModel, patch: Patch) -> dict[str, Spectrum]:
    """The decomposed change of each located parameter; InputError for one that no adapter can change."""
    spectra = {}
    for name, value in new_values(loaded, patch).items():
        _check_module(loaded, name)
        change = value.float() - loaded.model.get_parameter(name).detach().float().cpu()
        spectra[name] = spectrum(change.T if _transposed(loaded, name) else change)  # as (outputs, inputs)
    return spectra


def _check_module(loaded: LoadedModel, name: str) -> None:
    """InputError unless a parameter is the matrix of a linear layer, which is all that adapters change."""
    if not is_projection_weight(loaded.model, name):
        what = "one tensor for all experts" if loaded.model.get_parameter(name).ndim > 2 else "no linear layer's matrix"
        raise InputError(
            f"'{name}' is {what}, and neither peft's LoRA layers nor vLLM's loader take it; export --format model"
        )


def _transposed(loaded: LoadedModel, name: str) -> bool:
    return is_transposed(loaded.model.get_submodule(name.removesuffix(".weight")))


def adapter_rank(
    loaded: LoadedModel,
    spectra: dict[str, Spectrum],
    facts: Sequence[EditRequest],
    settings: Settings,
    trained: int | None,
) -> int:
    """The smallest rank at which no fact is lost, of RANKS and that which was trained at; raises as `least_rank`."""

    def ask(rank: int) -> FactsHeld:
        with preserved(loaded.model, tuple(spectra)):
            write_values(loaded.model, low_rank_values(loaded, spectra, rank))
            return ask_facts(loaded, facts, settings)

    return least_rank({*RANKS, *([trained] if trained else [])}, ask)


def _write(loaded: LoadedModel, spectra: dict[str, Spectrum], rank: int, folder: Path) -> None:
    """The two files of an adapter, in peft's form; nothing but plain LoRA, as vLLM takes nothing else."""
    from peft import LoraConfig  # takes seconds to import

    tensors: dict[str, torch.Tensor] = {}
    for name, found in spectra.items():
        module = PREFIX + name.removesuffix(".weight")
        reading, writing = found.factors(rank)
        tensors |= {f"{module}.lora_A.weight": reading, f"{module}.lora_B.weight": writing.contiguous()}
    place = Path(loaded.source)
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,  # so that the product counts once
        target_modules=sorted(name.removesuffix(".weight") for name in spectra),
        fan_in_fan_out=any(_transposed(loaded, name) for name in spectra),
        bias="none",
        task_type="CAUSAL_LM",
        inference_mode=True,
        base_model_name_or_path=str(place.resolve()) if place.is_dir() else loaded.source,
    )
    config.target_modules = sorted(config.target_modules or ())  # a set otherwise, in any order
    config.save_pretrained(str(folder))
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def _asked_through_peft(
    loaded: LoadedModel, folder: Path, facts: Sequence[EditRequest], settings: Settings
) -> FactsHeld:
    """What holds with the written adapter beside the model, as peft loads it."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's, on what the task type is
        adapted = PeftModel.from_pretrained(loaded.model, str(folder), torch_device="cpu")
        try:
            return ask_facts(loaded, facts, settings)  # its layers take the place of the model's own
        finally:
            adapted.unload()
            loaded.model.requires_grad_(False)
