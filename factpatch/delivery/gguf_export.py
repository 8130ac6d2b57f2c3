"""A patch for llama.cpp: the user's own GGUF file with the edited tensors written anew, or a LoRA beside that file."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter

from factpatch.delivery.asking import FactsHeld, ask_facts, least_rank, refuse_loss
from factpatch.delivery.gguf_layout import GGUFLayout
from factpatch.delivery.gguf_rewrite import EncodedTensor, rewrite
from factpatch.delivery.low_rank import RANKS, Spectrum, check_rank, loss, spectrum
from factpatch.delivery.quantizing import quantize
from factpatch.edits.request import EditRequest
from factpatch.errors import InputError
from factpatch.files import new_file, output_folder
from factpatch.models.loading import LoadedModel, load_model, preserved, write_values
from factpatch.models.sources.gguf_file import import_gguf
from factpatch.patches.patch import Patch, new_values
from factpatch.settings.config import ModelSettings, Settings


@dataclass(frozen=True)
class GGUFFile:
    """A file that was written: the types that the edited tensors have in it, and what holds of it."""

    path: Path
    what: str
    held: FactsHeld

    def __str__(self) -> str:
        return f"{self.path}: {self.what}, {self.path.stat().st_size / 1e6:.1f} MB; {self.held}"


def export_gguf(
    loaded: LoadedModel,
    patch: Patch,
    base: Path,
    output: Path,
    facts: Sequence[EditRequest],
    settings: Settings,
    kind: GGMLQuantizationType | None = None,
) -> GGUFFile:
    """Write a copy of the GGUF file `base` in which the edited tensors alone are other bytes: in the type that each has
    there, or in `kind`. It is read back and asked before it takes its place.

    Raises:
        InputError: the file is of another model than the patch, or a type cannot be written; named.
        RefusedError: more facts are lost in it than `gates.reliability` allows.
    """
    values, layout = new_values(loaded, patch), GGUFLayout(base, loaded)
    changed: dict[str, EncodedTensor] = {}
    for name, value in values.items():
        tensor = layout.find(name)
        chosen = kind or tensor.type
        changed[tensor.name] = EncodedTensor(
            chosen, quantize(layout.to_file(name, value), chosen, f"'{tensor.name}' of '{base}'")
        )
    layout.refuse_other_model()
    types = ", ".join(sorted({encoded.type.name for encoded in changed.values()}))
    with _new_path(output) as temporary:
        rewrite(base, temporary, changed)
        held = _asked_as_imported(temporary, facts, settings)
        advice = "write the edited tensors in a better type (--type q8_0), or train with more training.confidence"
        refuse_loss(f"the edited tensors in {types}", held, settings, advice)
    return GGUFFile(output, f"{len(changed)} tensors written anew as {types}", held)


def export_gguf_lora(
    loaded: LoadedModel,
    patch: Patch,
    base: Path,
    output: Path,
    facts: Sequence[EditRequest],
    settings: Settings,
    rank: int | None = None,
) -> GGUFFile:
    """Write a patch as a LoRA file for llama.cpp, to be loaded beside the GGUF file `base` (`--lora`).

    Without a `rank`, the smallest of RANKS at which no fact is lost beside that file is taken. Raises as `export_gguf`.
    """
    check_rank(rank)
    layout = GGUFLayout(base, loaded)
    spectra = _spectra(loaded, patch, layout)
    layout.refuse_other_model()
    beside = _dequantized(base)

    def asked(factors: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> FactsHeld:
        with preserved(beside.model, tuple(factors)):
            for name, (reading, writing) in factors.items():
                change = layout.from_file(name, (writing @ reading).numpy())
                parameter = beside.model.get_parameter(name)
                write_values(beside.model, {name: parameter.float() + change})
            return ask_facts(beside, facts, settings)

    chosen = rank or least_rank(
        RANKS, lambda tried: asked({name: found.factors(tried) for name, found in spectra.items()})
    )
    with _new_path(output) as temporary:
        _write_lora(temporary, layout, spectra, chosen)
        held = asked(_read_lora(temporary, layout, spectra))
        refuse_loss(f"a LoRA of rank {chosen}", held, settings, "ask for a larger --rank")
    left = loss(spectra.values(), chosen)
    return GGUFFile(output, f"LoRA of rank {chosen}, {left:.2%} of the change left out", held)


def _new_path(output: Path) -> AbstractContextManager[Path]:
    """A file that takes its place when all went well."""
    if output.exists():
        raise InputError(f"'{output}' exists; name a new file")
    output_folder(output.absolute().parent)
    return new_file(output)


def _spectra(loaded: LoadedModel, patch: Patch, layout: GGUFLayout) -> dict[str, Spectrum]:
    """The decomposed change of each located parameter, as it lies in the file."""
    found = {}
    for name, value in new_values(loaded, patch).items():
        if value.ndim != 2:
            raise InputError(f"'{name}' is one tensor for all experts, which no LoRA changes; export --format gguf")
        change = layout.to_file(name, value) - layout.to_file(name, loaded.model.get_parameter(name))
        found[name] = spectrum(torch.from_numpy(change))
    return found


def _asked_as_imported(file: Path, facts: Sequence[EditRequest], settings: Settings) -> FactsHeld:
    """What holds in a GGUF file as transformers reads it."""
    return ask_facts(_dequantized(file), facts, settings)


def _dequantized(file: Path) -> LoadedModel:
    """The model that a GGUF file holds, in float32."""
    with tempfile.TemporaryDirectory(prefix="factpatch.") as folder:
        return load_model(ModelSettings(path=str(import_gguf(file, Path(folder) / "model").folder)))


def _write_lora(file: Path, layout: GGUFLayout, spectra: dict[str, Spectrum], rank: int) -> None:
    """The file as llama.cpp's converter of adapters lays it out."""
    writer = GGUFWriter(file, layout.header.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(rank))
    for name, found in spectra.items():
        own = layout.find(name).name
        reading, writing = found.factors(rank)
        writer.add_tensor(f"{own}.lora_a", reading.numpy())
        writer.add_tensor(f"{own}.lora_b", np.ascontiguousarray(writing.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _read_lora(
    file: Path, layout: GGUFLayout, names: dict[str, Spectrum]
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The factors by parameter, as they stand in a file."""
    held = {tensor.name: torch.from_numpy(np.array(tensor.data)) for tensor in GGUFReader(file).tensors}
    found = {name: layout.find(name).name for name in names}
    return {name: (held[f"{own}.lora_a"], held[f"{own}.lora_b"]) for name, own in found.items()}
