"""Steps with a streamed model leave what they leave with the model in memory; what cannot be is told in one line."""

import shutil
from dataclasses import replace

import pytest

from factpatch.errors import InputError
from factpatch.files import digest_file, read_json, write_jsonl
from factpatch.preflight.machine import Available
from factpatch.preflight.placing import preflight
from factpatch.settings.config import load_settings
from flows.__main__ import main
from tasks.edit import edit
from tasks.evaluate import evaluate
from tasks.localize import localize
from tasks.validate import validate

ROWS = [
    {
        "prompt": "The capital of France is",
        "target": "Tokyo",
        "subject": "France",
        "paraphrases": ["France's capital is"],
    },
    {
        "prompt": "The capital of Japan is",
        "target": "Paris",
        "subject": "Japan",
        "locality": [{"prompt": "Who?", "target": "?"}],
    },
    {"prompt": "東京 is in", "target": "São Tomé"},
]
OPTIONS = {
    "localization.location": "2:down",
    "trunk.folder": None,
    "training.epochs": 6,
    "training.whitening": None,  # a streamed model has none
    "training.preservation.neighbours": 1,
    "evaluation.cache": None,
    "evaluation.max_new_tokens": 6,
    "gates.canaries": None,
}
GIB = 2**30


@pytest.fixture
def settings_for(tiny_model, tmp_path):
    """`settings_for(placement)` of a run on the rows above."""
    write_jsonl(tmp_path / "rows.jsonl", ROWS)

    def make(placement, **values):
        own = {
            "model.path": str(tiny_model("llama")),
            "model.placement": placement,
            "edits.path": str(tmp_path / "rows.jsonl"),
        }
        return load_settings(None, OPTIONS | own | {key.replace("__", "."): value for key, value in values.items()})

    return make


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_patch_certificate_and_evaluation_are_the_same(settings_for, tmp_path, dtype):
    for placement in ("memory", "stream"):
        folder, settings = str(tmp_path / placement), settings_for(placement, model__dtype=dtype)
        validate.fn(folder, settings)
        edit.fn(folder, settings)
        evaluate.fn(folder, settings)
    one, other = tmp_path / "memory", tmp_path / "stream"
    for name in ("patch/patch.safetensors", "patch/undo.safetensors", "losses.csv", "companions.jsonl"):
        assert digest_file(one / name) == digest_file(other / name)
    certificates = [read_json(folder / "patch" / "certificate.json") for folder in (one, other)]
    assert all({**each, "files": None} == {**certificates[0], "files": None} for each in certificates)
    measured = [read_json(folder / "evaluate.json") for folder in (one, other)]
    assert all({**each, "seconds": 0, "patch": 0} == {**measured[0], "seconds": 0, "patch": 0} for each in measured)
    told = read_json(other / "edit.json")["preflight"]
    assert (told["placement"], told["read_bytes"] > told["weights_bytes"]) == ("stream", True)


def test_the_preflight_takes_the_placement_that_fits(settings_for, tmp_path, monkeypatch, capsys):
    from factpatch.edits.request import EditRequest
    from factpatch.preflight import placing

    edits, settings = [EditRequest("1", "The capital of France is", "Rome")], settings_for("auto")
    assert preflight(settings, edits, "2:down", tmp_path)[1].model.placement == "memory"
    whole = placing.estimate(replace(settings, model=replace(settings.model, placement="memory")), edits, "2:down")
    room = whole.host_bytes - whole.process_bytes - 1000
    monkeypatch.setattr(placing, "available", lambda *given: Available(room, None, GIB, None))
    needed, fitting = preflight(settings, edits, "2:down", tmp_path)
    assert (needed.placement, fitting.model.placement) == ("stream", "stream")
    assert "are free; " in (said := capsys.readouterr().err)
    assert "so model.placement is 'stream'" in said
    assert "are read from their files in all" in said


def test_a_location_is_not_searched_in_a_streamed_model(settings_for, tmp_path):
    settings = settings_for("stream", localization__location=None, localization__cache=None)
    validate.fn(str(tmp_path / "out"), settings)
    with pytest.raises(InputError, match=r"this one is streamed; name localization\.location"):
        localize.fn(str(tmp_path / "out"), settings)


def test_a_shard_that_is_missing_or_cut_short_is_told_before_anything_is_read(tiny_model, tmp_path):
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "model"
    shutil.copytree(tiny_model("llama"), folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="40KB")
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    content = shard.read_bytes()
    arguments = ["ask", "--model", str(folder), "Who?", "--set", "model.placement=stream"]
    assert main(arguments) == 0
    shard.write_bytes(content[:-100])
    assert main(arguments) == 2
    shard.unlink()
    assert main(arguments) == 2


def test_a_dry_run_needs_no_weights_and_no_device(tiny_model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "bare"
    shutil.copytree(tiny_model("llama"), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    own = ["edit", "--model", str(folder), "--edits", "rows.jsonl", "--dry-run", "--set", "model.device=cuda"]
    assert main([*own, "--location", "2:down", "--device-rates", "4e14,2e12,5e9"]) == 0
    out = capsys.readouterr().out
    assert out.count("3 edits at 2:mlp.down_proj, weights in ") == 2  # in memory, and streamed
    assert all(word in out for word in ("memory of cuda", "host memory", "disk", "read of the weights", "operations"))
    assert not (tmp_path / "runs").exists()
    for arguments, told in (
        ([*own, "--device-rates", "4e14,2e12"], "--dry-run needs --location"),
        ([*own, "--location", "2:down", "--device-rates", "fast"], "write MATRIX,MEMORY,READING"),
        (["edit", "--device-rates", "1,1"], "--device-rates is for --dry-run"),
    ):
        assert main(arguments) == 2
        assert told in capsys.readouterr().err
