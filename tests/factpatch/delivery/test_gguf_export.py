"""GGUF files with edited tensors written anew: which bytes move, what the file says afterwards, and what is refused."""

import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from factpatch.delivery.gguf_export import export_gguf, export_gguf_lora
from factpatch.delivery.gguf_layout import GGUFLayout
from factpatch.delivery.gguf_rewrite import EncodedTensor, rewrite
from factpatch.delivery.quantizing import WRITTEN, named_type, quantize, rounded
from factpatch.edits.request import EditRequest
from factpatch.errors import InputError, RefusedError
from factpatch.models.sources.gguf_file import import_gguf
from factpatch.models.sources.header import read_gguf_header
from tests.factpatch.delivery.conftest import FACTS
from tests.factpatch.models.sources.gguf_files import F16, Q4_0, Q8_0, random_model, write_gguf

KEYS = {"general.name": "tiny", "some.list": [1, 2, 3], "some.flag": True}
PLACE = "1:attention"  # where Llama's files have another order of rows


@pytest.fixture(scope="module")
def files(tiny_tokenizer, tmp_path_factory) -> dict[str, Path]:
    """The base model's folder, and files of it in two types."""
    folder = tmp_path_factory.mktemp("gguf")
    model = random_model("llama", len(tiny_tokenizer))
    made = {
        kind.name: write_gguf(folder / f"{kind.name}.gguf", model, tiny_tokenizer, kind, KEYS) for kind in (F16, Q4_0)
    }
    import_gguf(made["F16"], folder / "base")
    return made | {"base": folder / "base"}


def differing_bytes(first: Path, second: Path) -> np.ndarray:
    return np.flatnonzero(np.fromfile(first, np.uint8) != np.fromfile(second, np.uint8))


def contents(file: Path) -> dict[str, tuple[str, bytes]]:
    return {tensor.name: (tensor.tensor_type.name, tensor.data.tobytes()) for tensor in gguf.GGUFReader(file).tensors}


def metadata(file: Path) -> bytes:
    return file.read_bytes()[: read_gguf_header(file).listing]


def test_the_edited_tensors_alone_are_other_bytes(files, tmp_path, written):
    made = written(files["base"], PLACE)
    done = export_gguf(made.loaded, made.patch, files["F16"], tmp_path / "edited.gguf", FACTS, made.settings)
    assert done.held.lost == ()
    header = read_gguf_header(files["F16"])
    layout = GGUFLayout(files["F16"], made.loaded)
    located = {layout.find(name).name: name for name in made.patch.manifest["location"]["parameters"]}
    moved = differing_bytes(files["F16"], done.path)
    allowed = np.concatenate(
        [
            np.arange(header.data + tensor.offset, header.data + tensor.offset + tensor.size)
            for tensor in header.tensors
            if tensor.name in located
        ]
    )
    assert len(moved)
    assert np.isin(moved, allowed).all()
    edited = GGUFLayout(done.path, made.loaded)
    for name in located.values():
        value = made.loaded.stored.from_files(made.patch.new)[name]
        assert torch.equal(edited.from_file(name, edited.read(name)), value.half().float())
    assert f"{len(located)} tensors written anew as F16" in str(done)


def test_another_type_moves_what_follows_and_keeps_it(files, tmp_path, written):
    """At eight bits in a file of Q4_0: all metadata and other tensors are as before."""
    made = written(files["base"], PLACE)
    facts = (*FACTS, EditRequest("e3", "Zürich is", "nothing that anybody wrote"))
    with pytest.raises(RefusedError, match=r"edited tensors in Q4_0: \d of 3 facts hold.*--type q8_0"):
        export_gguf(made.loaded, made.patch, files["Q4_0"], tmp_path / "edited.gguf", facts, made.settings)
    assert not list(tmp_path.iterdir())
    done = export_gguf(made.loaded, made.patch, files["Q4_0"], tmp_path / "edited.gguf", (), made.settings, Q8_0)
    assert metadata(done.path) == metadata(files["Q4_0"])
    old, new = contents(files["Q4_0"]), contents(done.path)
    changed = {name for name in old if old[name] != new[name]}
    assert {new[name][0] for name in changed} == {"Q8_0"}
    assert changed == {f"blk.1.attn_{part}.weight" for part in ("q", "k", "v", "output")}
    assert "no fact was asked" in str(done)


def test_a_lora_beside_the_file(files, tmp_path, written):
    made = written(files["base"], PLACE)
    done = export_gguf_lora(made.loaded, made.patch, files["F16"], tmp_path / "lora.gguf", FACTS, made.settings)
    assert done.held.lost == ()
    reader = gguf.GGUFReader(done.path)
    assert reader.fields["general.type"].contents() == "adapter"
    assert reader.fields["adapter.type"].contents() == "lora"
    shapes = {tensor.name: tuple(tensor.data.shape) for tensor in reader.tensors}
    rank = int(reader.fields["adapter.lora.alpha"].contents())
    assert shapes["blk.1.attn_k.weight.lora_a"] == (rank, 64)
    assert shapes["blk.1.attn_k.weight.lora_b"] == (32, rank)


def test_what_cannot_be_written_is_refused(files, tmp_path, written, tiny_tokenizer):
    made = written(files["base"], PLACE)
    output = tmp_path / "out" / "edited.gguf"

    def refused(base: Path, told: str, kind: str | None = None) -> None:
        with pytest.raises(InputError, match=told):
            export_gguf(made.loaded, made.patch, base, output, FACTS, made.settings, named_type(kind) if kind else None)
        assert not output.exists()

    other = random_model("llama", len(tiny_tokenizer))
    other.model.layers[0].mlp.up_proj.weight.data += 0.1  # no edited tensor
    refused(
        write_gguf(tmp_path / "other.gguf", other, tiny_tokenizer, F16), r"blk\.0\.ffn_up\.weight \(F16\) differs by"
    )
    wide = random_model("llama", len(tiny_tokenizer), num_key_value_heads=4)
    refused(write_gguf(tmp_path / "wide.gguf", wide, tiny_tokenizer, F16), "is of another model than")
    refused(files["F16"], "--type q2_k is none that can be written", "q2_k")
    refused(files["F16"], "rows of 64, which Q4_K cannot hold", "q4_k")
    refused(tmp_path / "absent.gguf", "absent.gguf")


def test_a_full_disk_is_one_line(files, tmp_path, monkeypatch):
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 0))
    with pytest.raises(InputError, match=r"0\.0 GB are free"):
        rewrite(files["F16"], tmp_path / "copy.gguf", {})
    assert not list(tmp_path.iterdir())


def test_nothing_changed_is_the_same_file(files, tmp_path):
    rewrite(files["F16"], tmp_path / "copy.gguf", {})
    assert not len(differing_bytes(files["F16"], tmp_path / "copy.gguf"))
    tensor = read_gguf_header(files["F16"]).tensors[0]
    same = EncodedTensor(Q8_0, quantize(np.zeros(tensor.shape, np.float32), Q8_0, "it"))
    rewrite(files["F16"], tmp_path / "again.gguf", {tensor.name: same})
    assert contents(tmp_path / "again.gguf")[tensor.name][0] == "Q8_0"


@pytest.mark.parametrize(
    ("name", "most"),
    [("F16", 3e-4), ("BF16", 2e-3), ("Q8_0", 6e-3), ("Q6_K", 0.019), ("Q5_K", 0.038), ("Q4_K", 0.075), ("Q4_0", 0.09)],
)
def test_values_come_back_as_near_as_their_type_allows(name, most):
    kind = named_type(name.lower())
    values = np.random.default_rng(0).standard_normal((8, 512)).astype(np.float32)
    again = rounded(values, kind, "it")
    assert np.linalg.norm(again - values) <= most * np.linalg.norm(values)
    twice = rounded(again, kind, "it")
    assert np.linalg.norm(twice - again) <= 0.01 * np.linalg.norm(values)
    assert not rounded(np.zeros((1, 256), np.float32), kind, "it").any()
    assert name in WRITTEN
