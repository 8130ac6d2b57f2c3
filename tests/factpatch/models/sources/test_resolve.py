"""A GGUF file named as the model, anywhere: made a folder once, used from there, and known by its own name."""

import json
import shutil
from pathlib import Path

import pytest

from factpatch.errors import InputError
from factpatch.models.loading import check_source, load_tokenizer
from factpatch.models.sources.identity import model_identity
from factpatch.settings.config import ModelSettings, load_settings
from flows.__main__ import main
from tests.factpatch.models.sources.gguf_files import random_model, write_gguf


@pytest.fixture
def file(tiny_tokenizer, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_gguf(Path("model.gguf"), random_model("llama", len(tiny_tokenizer)), tiny_tokenizer)


def kept() -> list[Path]:
    return sorted(Path(".cache/models").glob("[!.]*"))


def test_verbs_take_a_gguf_file_as_the_model(file, capsys):
    rows = [{"prompt": "The capital of France is", "target": "Tokyo"}, {"prompt": "東京 is in", "target": "São Tomé"}]
    Path("edits.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--model", "model.gguf", "--edits", "edits.jsonl", "--output", "out", "--location", "1:mlp"]
    wishes = ("learning_rate=0.03", "epochs=150", "preservation.neighbours=0", "augmentation.wordings=0")
    assert main(["edit", *options, *(f"--set=training.{wish}" for wish in wishes)]) == 0
    assert capsys.readouterr().err.count("'model.gguf' is a GGUF file") == 1
    assert json.loads(Path("out/patch/manifest.json").read_text())["base"]["source"] == "model.gguf"
    assert main(["ask", "--model", "model.gguf", "--patch", "out/patch", "東京 is in"]) == 0
    assert capsys.readouterr().out == "São Tomé\n"
    assert main(["apply", "--model", "model.gguf", "--patch", "out/patch", "--output", "edited"]) == 0
    assert main(["import", "model.gguf", "--output", "folder"]) == 0
    assert "'folder' made of 'model.gguf' (F32): float32, 0 MB; logits differ by 0 at most" in capsys.readouterr().out
    assert main(["undo", "--model", "edited", "--patch", "out/patch", "--output", "restored"]) == 0
    assert Path("restored/model.safetensors").read_bytes() == Path("folder/model.safetensors").read_bytes()
    assert len(kept()) == 1


def test_a_project_of_a_gguf_file_names_the_file(file, monkeypatch, capsys):
    new, bad = Path("new"), file.absolute().with_name("bad.gguf")
    new.mkdir()
    bad.write_bytes(file.read_bytes()[:-1])
    monkeypatch.chdir(new)
    assert main(["init", "--model", str(bad)]) == 2
    assert "is cut" in capsys.readouterr().err
    assert main(["init", "--model", "../model.gguf"]) == 0
    assert load_settings().model == ModelSettings(path=str(bad.with_name("model.gguf")))
    assert main(["init", "--model", "../model.gguf"]) == 2
    assert "is not an empty folder" in capsys.readouterr().err


def test_a_changed_file_is_another_model(file, tiny_tokenizer):
    first, identity = check_source("model.gguf"), model_identity("model.gguf")
    assert check_source("model.gguf") == first
    assert model_identity(str(shutil.copy(file, "copy.gguf"))) == identity
    write_gguf(file, random_model("llama", len(tiny_tokenizer), intermediate_size=64), tiny_tokenizer)
    assert check_source("model.gguf") != first
    assert model_identity("model.gguf") != identity
    assert len(kept()) == 2
    assert load_tokenizer(ModelSettings(path="model.gguf"))("a")["input_ids"] == tiny_tokenizer("a")["input_ids"]


def test_what_is_no_model_is_refused_at_once(file, capsys):
    with pytest.raises(InputError, match=r"holds GGUF files; name one of them, such as 'model.gguf'"):
        check_source(".")
    file.write_bytes(file.read_bytes()[:-1])
    for arguments in (["run"], ["edit"], ["evaluate"], ["localize"], ["ask", "x"]):
        assert main([arguments[0], "--model", "model.gguf", *arguments[1:]]) == 2
        assert capsys.readouterr().err.startswith("error: 'model.gguf' is cut")
    assert main(["ask", "--model", "owner/absent.gguf", "x"]) == 2
    assert capsys.readouterr().err.startswith("error: model file 'owner/absent.gguf' cannot be read (No such file")
    assert not kept()
