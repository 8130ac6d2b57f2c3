"""`factpatch export --patch` and `factpatch inspect`, as users call them."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from factpatch.files import write_json
from flows.__main__ import main
from tests.factpatch.delivery.conftest import FACTS


@pytest.fixture
def patch(tiny_model, written, tmp_path, monkeypatch) -> Path:
    """A patch with what was measured beside it, of a base model that lies in `base`."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_model("llama"), "base")
    made = written(tiny_model("llama"), "2:mlp")
    rows = [{"id": fact.id, "prompt": fact.prompt, "target": fact.target, "reliable": True} for fact in FACTS]
    write_json(tmp_path / "evaluate.json", {"edits": rows})
    return Path(shutil.copytree(made.patch.folder, "patch"))


def test_a_patch_is_exported_as_an_adapter_and_shown(patch, capsys):
    command = ["export", "--patch", "patch", "--model", "base", "--format", "peft", "--output", "adapter"]
    assert main(command) == 0
    assert "2 of 2 facts hold" in capsys.readouterr().out
    assert main(command) == 2
    assert capsys.readouterr().err == "error: 'adapter' exists; name a new --output\n"
    assert main(["inspect", "patch"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("tensor       model.layers.2.mlp.") for line in lines) == 3
    assert "arXiv 2602.10134" in lines[-1]


def test_a_fine_tune_of_the_base_is_refused_in_a_line(patch, capsys):
    manifest = patch / "manifest.json"
    weights = load_file("base/model.safetensors")
    save_file({name: value + 0.001 for name, value in weights.items()}, "base/model.safetensors", {"format": "pt"})
    source = next(line for line in manifest.read_text().splitlines() if '"source"' in line)
    manifest.write_text(manifest.read_text().replace(source, '"source": "nobody/knows",'))
    assert main(["export", "--patch", "patch", "--model", "base", "--output", "edited"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'base' is another model (" in line
    assert "name its place with --model or FACTPATCH_BASE" in line
    assert not Path("edited").exists()
