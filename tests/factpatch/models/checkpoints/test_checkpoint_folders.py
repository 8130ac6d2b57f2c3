"""Folders that are not exactly a model: each refused by the name of what is wrong, mostly from headers alone."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from factpatch.errors import InputError
from factpatch.models.checkpoints.folder import read_checkpoint
from factpatch.models.loading import check_source, load_model, load_tokenizer
from factpatch.settings.config import ModelSettings

LAST = "model.layers.3.mlp.up_proj.weight"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1234\n"


@pytest.fixture
def folder(tiny_model, tmp_path):
    """A copy of a whole model in one file."""
    return shutil.copytree(tiny_model("llama"), tmp_path / "model")


@pytest.fixture
def sharded(folder):
    """The same in two files and their index."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    files = {name: f"model-0000{1 + ('3' in name)}-of-00002.safetensors" for name in tensors}
    for file in sorted(set(files.values())):
        save_file({name: tensors[name] for name in tensors if files[name] == file}, folder / file, {"format": "pt"})
    write_json(folder / INDEX, {"metadata": {}, "weight_map": files})
    return folder


def write_json(path, value):
    path.write_text(json.dumps(value))


def change_config(folder, **values):
    write_json(folder / "config.json", json.loads((folder / "config.json").read_text()) | values)


def change_weights(folder, change):
    tensors = load_file(folder / WEIGHTS)
    save_file(change(tensors), folder / WEIGHTS, {"format": "pt"})


def change_index(folder, change):
    index = json.loads((folder / INDEX).read_text())
    write_json(folder / INDEX, index | {"weight_map": change(index["weight_map"])})


def without(tensors, name):
    return {key: value for key, value in tensors.items() if key != name}


WHOLE = {
    "empty": (lambda folder: (folder / WEIGHTS).write_bytes(b""), "model.safetensors' is empty"),
    "pointer": (lambda folder: (folder / WEIGHTS).write_text(POINTER), "model.safetensors' is a Git LFS pointer"),
    "pointer for the tokenizer": (
        lambda folder: (folder / "tokenizer.json").write_text(POINTER),
        "tokenizer.json' is a Git LFS pointer",
    ),
    "pointer for the configuration": (
        lambda folder: (folder / "config.json").write_text(POINTER),
        "config.json' is a Git LFS pointer",
    ),
    "cut": (
        lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-4]),
        "model.safetensors' is cut short: it has .* bytes",
    ),
    "cut in the header": (
        lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:100]),
        "model.safetensors' is cut short: its header alone",
    ),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), f"neither {WEIGHTS} nor {INDEX}"),
    "no tensor": (lambda folder: save_file({}, folder / WEIGHTS), "holds no tensor"),
    "pickle": (
        lambda folder: (folder / WEIGHTS).rename(folder / "pytorch_model.bin"),
        r"as pickle \(pytorch_model.bin\).*save_pretrained",
    ),
    "a part without its index": (
        lambda folder: (folder / WEIGHTS).rename(folder / "model-00001-of-00001.safetensors"),
        f"model-00001-of-00001.safetensors but no {INDEX}",
    ),
    "adapter beside": (
        lambda folder: write_json(folder / "adapter_config.json", {"peft_type": "LORA"}),
        r"adapter \(adapter_config.json\), which is not loaded; merge the adapter first",
    ),
    "quantized by its configuration": (
        lambda folder: change_config(folder, quantization_config={"quant_method": "gptq", "bits": 4}),
        r"is quantized \(config.json says gptq\).*dequantize",
    ),
    "quantized in a part of its configuration": (
        lambda folder: change_config(folder, text_config={"quantization_config": {"quant_method": "fp8"}}),
        r"is quantized \(config.json says fp8\)",
    ),
    "quantized by a file of its own": (
        lambda folder: write_json(folder / "hf_quant_config.json", {}),
        r"is quantized \(hf_quant_config.json is there\)",
    ),
    "eight bits of floating point": (
        lambda folder: change_weights(folder, lambda held: held | {LAST: held[LAST].to(torch.float8_e4m3fn)}),
        re.escape(f"is quantized (tensor '{LAST}' is F8_E4M3 in model.safetensors)"),
    ),
    "eight bits of integers": (
        lambda folder: change_weights(folder, lambda held: held | {LAST: held[LAST].to(torch.int8)}),
        re.escape(f"is quantized (tensor '{LAST}' is I8"),
    ),
    "packed": (
        lambda folder: change_weights(
            folder, lambda held: without(held, LAST) | {"a.qweight": torch.zeros(2, dtype=torch.int32)}
        ),
        r"is quantized \(tensor 'a.qweight' is I32",
    ),
    "two sets": (
        lambda folder: write_json(folder / INDEX, {"weight_map": {LAST: "model-00001-of-00001.safetensors"}}),
        f"two sets of weights, {WEIGHTS} and the parts that {INDEX} names",
    ),
    "a configuration that is none": (lambda folder: (folder / "config.json").write_text("[]"), "no JSON object"),
}
PARTS = {
    "a part is gone": (
        lambda folder: (folder / "model-00002-of-00002.safetensors").unlink(),
        "names model-00002-of-00002.safetensors, which is not there",
    ),
    "a part is a pointer": (
        lambda folder: (folder / "model-00002-of-00002.safetensors").write_text(POINTER),
        "model-00002-of-00002.safetensors' is a Git LFS pointer",
    ),
    "a tensor too few": (
        lambda folder: change_index(folder, lambda listed: without(listed, LAST)),
        f"'{LAST}' is listed for no file and stands in model-00002-of-00002.safetensors",
    ),
    "a tensor too many": (
        lambda folder: change_index(folder, lambda listed: listed | {"a": "model-00001-of-00002.safetensors"}),
        "'a' is listed for model-00001-of-00002.safetensors and stands in none",
    ),
    "another part": (
        lambda folder: change_index(folder, lambda listed: listed | {LAST: "model-00001-of-00002.safetensors"}),
        f"'{LAST}' is listed for model-00001-of-00002.safetensors and stands in model-00002-of-00002.safetensors",
    ),
    "a tensor twice": (
        lambda folder: shutil.copy(
            folder / "model-00001-of-00002.safetensors", folder / "model-00002-of-00002.safetensors"
        ),
        "stands in model-00001-of-00002.safetensors and in model-00002-of-00002.safetensors",
    ),
    "a path outside": (
        lambda folder: change_index(folder, lambda listed: listed | {LAST: "../other.safetensors"}),
        "names no file in its folder",
    ),
    "no map": (lambda folder: write_json(folder / INDEX, {"weight_map": {}}), "has no weight_map"),
    "no JSON": (lambda folder: (folder / INDEX).write_text("{"), "is not JSON"),
}


@pytest.mark.parametrize("case", WHOLE)
def test_a_folder_that_is_not_a_whole_model_is_refused_before_anything_is_loaded(folder, case):
    break_it, words = WHOLE[case]
    break_it(folder)
    for look in (check_source, lambda path: load_model(ModelSettings(path=path))):
        with pytest.raises(InputError, match=words) as raised:
            look(str(folder))
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("case", PARTS)
def test_parts_that_are_not_what_the_index_says_are_refused(sharded, case):
    check_source(str(sharded))
    break_it, words = PARTS[case]
    break_it(sharded)
    with pytest.raises(InputError, match=words):
        check_source(str(sharded))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_tensor_that_the_file_lacks_is_refused_by_name(folder, dtype):
    change_weights(folder, lambda held: without(held, LAST))
    with pytest.raises(InputError, match=re.escape(f"its files lack 1 tensor ({LAST}) that LlamaForCausalLM needs")):
        load_model(ModelSettings(path=str(folder), dtype=dtype))


def test_another_shape_than_the_configurations_is_refused_by_name(folder):
    change_weights(folder, lambda held: held | {LAST: held[LAST][:, :-1].contiguous()})
    with pytest.raises(InputError, match=re.escape(f"'{LAST}' has shape [64, 31] in the file and [64, 32]")):
        load_model(ModelSettings(path=str(folder)))


def test_two_tensors_that_the_configuration_ties_to_one_are_refused_or_both_loaded(folder):
    """transformers parts what the files hold apart; then memory is what they say."""
    change_weights(folder, lambda held: held | {"lm_head.weight": held["model.embed_tokens.weight"] * 2})
    change_config(folder, tie_word_embeddings=True)
    assert load_model(ModelSettings(path=str(folder))).stored.differing() == []


def test_an_index_of_one_whole_file_is_no_second_set(folder):
    names = load_file(folder / WEIGHTS)
    write_json(folder / INDEX, {"weight_map": dict.fromkeys(names, WEIGHTS)})
    assert set(read_checkpoint(folder).tensors) == set(names)
    load_model(ModelSettings(path=str(folder)))


def test_what_the_class_does_not_load_is_said_once(folder, caplog):
    change_weights(folder, lambda held: held | {"mtp.norm.weight": torch.ones(4)})
    for _ in range(2):
        assert load_model(ModelSettings(path=str(folder))).stored.unused() == ["mtp.norm.weight"]
    assert [record.message for record in caplog.records] == [
        f"model '{folder}': LlamaForCausalLM does not load 1 tensor (mtp.norm.weight) of its files; what is not loaded "
        "stays as it is"
    ]


def test_weights_are_not_needed_for_the_tokenizer_alone(folder):
    (folder / WEIGHTS).unlink()
    load_tokenizer(ModelSettings(path=str(folder)))


def test_a_folder_of_an_adapter_alone_is_named(folder):
    for name in ("config.json", WEIGHTS):
        (folder / name).unlink()
    write_json(folder / "adapter_config.json", {"peft_type": "LORA"})
    with pytest.raises(InputError, match="has no base_model_name_or_path"):
        check_source(str(folder))


def test_weights_in_memory_that_changed_are_not_the_files(folder):
    loaded = load_model(ModelSettings(path=str(folder)))
    assert loaded.stored.differing() == []
    loaded.model.get_parameter(LAST).data[0, 0] += 1
    assert loaded.stored.differing() == [LAST]
    with pytest.raises(InputError, match=re.escape(f"{LAST} of LlamaForCausalLM has no place in the files")):
        loaded.stored.refuse_unmapped([LAST])
    homeless = replace(loaded.stored, groups=without(loaded.stored.groups, LAST))
    with pytest.raises(InputError, match="has no place in the files"):
        homeless.refuse_unmapped([LAST])
