"""A streamed model is the same model to the last bit, and no more of it is in memory than runs."""

import shutil
from dataclasses import replace

import pytest
import torch

from factpatch.errors import InputError
from factpatch.evaluation.generation import decode
from factpatch.models.encoding import encode_prompts
from factpatch.models.loading import known_digests, load_model, preserved, tensor_digests, write_values
from factpatch.models.placement import held_from, stream_of
from factpatch.settings.config import ModelSettings, build_settings

PROMPTS = ("The capital of France is", "Who?", "東京 is in", "His currency is the", "Zürich is a city in")
DOWN = {"llama": "mlp.down_proj.weight", "qwen2": "mlp.down_proj.weight", "gpt2": "mlp.c_proj.weight"}
STACK = {"llama": "model.layers", "qwen2": "model.layers", "gpt2": "transformer.h"}


def streamed(folder, **settings):
    return load_model(ModelSettings(path=str(folder), placement="stream", **settings))


def block_bytes(model):
    stream = stream_of(model)
    return sum(model.get_parameter(name).nbytes for names in stream.blocks for name in names)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_computes_what_the_model_in_memory_computes(tiny_model, kind, dtype):
    whole = load_model(ModelSettings(path=str(tiny_model(kind)), dtype=dtype))
    loaded = streamed(tiny_model(kind), dtype=dtype)
    assert tensor_digests(loaded.model) == tensor_digests(whole.model)
    assert known_digests(loaded.model) == known_digests(whole.model)
    assert loaded.model.config.to_dict() == whole.model.config.to_dict()
    assert loaded.model.generation_config.to_dict() == whole.model.generation_config.to_dict()
    assert loaded.stored.differing() == loaded.stored.missing() == []
    stream = stream_of(loaded.model)
    before = stream.bytes_read
    ids = torch.arange(12).view(3, 4)
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, whole.model(ids).logits)
    assert stream.bytes_read - before == block_bytes(loaded.model)  # each block once
    assert all(stream.absent(names) for names in stream.blocks)


def test_answers_are_decoded_in_lock_step(tiny_model, kind):
    whole, loaded = load_model(ModelSettings(path=str(tiny_model(kind)))), streamed(tiny_model(kind))
    prompts = encode_prompts(whole.tokenizer, PROMPTS)
    stream, wanted = stream_of(loaded.model), decode(whole, prompts, 6, 2)
    before = stream.bytes_read
    assert decode(loaded, prompts, 6, 2) == wanted
    passes = (stream.bytes_read - before) / block_bytes(loaded.model)
    assert passes < 6 + 1  # three batches: a pass for each token, and the block that was read ahead


def test_an_error_in_one_of_the_passes_ends_all(tiny_model):
    loaded = streamed(tiny_model("llama"))

    def work(broken):
        loaded.model(torch.arange(4)[None])
        if broken:
            raise ValueError("this one")
        loaded.model(torch.arange(4)[None])
        return broken

    stream = stream_of(loaded.model)
    with pytest.raises(ValueError, match="this one"):
        stream.side_by_side([lambda broken=broken: work(broken) for broken in (False, True, False)])
    assert all(stream.absent(names) for names in stream.blocks)
    assert stream.side_by_side([lambda: work(False)]) == [False]


def test_values_that_are_written_stay_and_what_is_preserved_comes_back(tiny_model, kind):
    loaded = streamed(tiny_model(kind))
    name = f"{STACK[kind]}.2.{DOWN[kind]}"
    digests = tensor_digests(loaded.model)
    with preserved(loaded.model, [name]) as originals:
        write_values(loaded.model, {name: originals[0] + 1})
        loaded.model(torch.arange(4)[None])
        assert tensor_digests(loaded.model)[name] != digests[name]
    assert tensor_digests(loaded.model) == digests
    write_values(loaded.model, {name: originals[0] + 1})
    loaded.model(torch.arange(4)[None])
    assert {key for key, value in tensor_digests(loaded.model).items() if value != digests[key]} == {name}


def test_the_upper_part_is_in_memory_while_it_is_held(tiny_model):
    loaded = streamed(tiny_model("llama"))
    stream = stream_of(loaded.model)
    untied = loaded.model.get_input_embeddings().weight is not loaded.model.get_output_embeddings().weight
    with held_from(loaded.model, 2):
        assert [bool(stream.absent(names)) for names in stream.blocks] == [True, True, False, False]
        assert not untied or not loaded.model.get_input_embeddings().weight.any()
    assert all(stream.absent(names) for names in stream.blocks)
    assert loaded.model.get_input_embeddings().weight.any()


def test_a_file_that_goes_while_it_is_needed_is_told_in_one_line(tiny_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model("llama"), folder)
    loaded = streamed(folder)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"became shorter while it was read; download it again$"):
        loaded.model(torch.arange(4)[None])
    weights.unlink()
    with pytest.raises(InputError, match=r"cannot be read \(No such file or directory\); download it again$"):
        loaded.model(torch.arange(4)[None])
    weights.write_bytes(content)
    loaded.model(torch.arange(4)[None])


def test_a_model_without_blocks_is_refused_in_one_line(tiny_model, monkeypatch):
    monkeypatch.setattr(
        "factpatch.models.placement.decoder_blocks",
        lambda model: (_ for _ in ()).throw(InputError("has no stack of decoder blocks")),
    )
    with pytest.raises(InputError, match=r"model.placement 'stream'"):
        streamed(tiny_model("llama"))


def test_a_placement_that_there_is_not_is_refused():
    with pytest.raises(InputError, match="placement"):
        build_settings({"model": {"placement": "cloud"}})


def test_a_model_that_does_not_fit_is_streamed_and_that_is_said(tiny_model, monkeypatch, caplog):
    settings = ModelSettings(path=str(tiny_model("llama")))
    assert stream_of(load_model(settings).model) is None
    monkeypatch.setattr("factpatch.models.placement.free_memory", lambda device="cpu": 1000)
    assert stream_of(load_model(settings).model)
    assert "so model.placement is 'stream'" in caplog.text
    assert stream_of(load_model(replace(settings, placement="memory")).model) is None
