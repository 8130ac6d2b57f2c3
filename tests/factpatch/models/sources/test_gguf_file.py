"""GGUF files as models: every tensor and the tokenizer against the model a file was made of, and each kind of file
that is refused."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from factpatch.errors import InputError
from factpatch.models.loading import load_model
from factpatch.models.sources.gguf_file import import_gguf
from factpatch.models.sources.header import read_gguf_header
from factpatch.settings.config import ModelSettings
from tests.factpatch.models.sources.gguf_files import (
    BF16,
    CHAT,
    F16,
    F32,
    Q4_0,
    Q8_0,
    after_storing,
    random_model,
    sentencepieces,
    write_gguf,
)

TEXTS = ("The capital of France is Paris.", "Zürich  12 34\n\n5", " a")


@pytest.fixture(scope="module")
def llama(tiny_tokenizer):
    return random_model("llama", len(tiny_tokenizer))


@pytest.fixture(scope="module")
def whole(llama, tiny_tokenizer, tmp_path_factory) -> Path:
    """A good file, not to be changed."""
    return write_gguf(tmp_path_factory.mktemp("gguf") / "whole.gguf", llama, tiny_tokenizer)


def ids(tokenizer, text):
    return tokenizer(text)["input_ids"]


def refused(file: Path, output: Path) -> str:
    """The line that refuses a file; nothing is left of the output."""
    with pytest.raises(InputError) as caught:
        import_gguf(file, output)
    assert not output.exists()
    assert not list(output.parent.glob(".*"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "stored", "dtype", "changes"),
    [
        ("llama", F32, torch.float32, {}),
        ("llama", F16, torch.float16, {"tie_word_embeddings": False}),
        ("llama", BF16, torch.bfloat16, {}),
        ("llama", Q4_0, torch.float32, {}),
        ("qwen2", Q8_0, torch.float32, {}),
        ("gemma3_text", Q8_0, torch.float32, {"query_pre_attn_scalar": 256, "sliding_window": 16}),
    ],
)
def test_a_folder_holds_what_the_file_does(kind, stored, dtype, changes, tiny_tokenizer, tmp_path):
    gemma = sentencepieces() | {"gemma3.attention.sliding_window": 16} if kind == "gemma3_text" else {}
    size = len(gemma["tokenizer.ggml.tokens"]) if gemma else len(tiny_tokenizer)
    model = random_model(kind, size, **changes)
    file = write_gguf(tmp_path / "model.gguf", model, None if gemma else tiny_tokenizer, stored, gemma)
    made = import_gguf(file, tmp_path / "made")
    assert (made.dtype, made.difference) == (dtype, 0.0)
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "made")
    expected = {
        name: torch.from_numpy(after_storing(name, tensor.detach().numpy(), stored, model.config)).to(dtype)
        for name, tensor in model.named_parameters()
    }
    assert {name: tensor.dtype for name, tensor in found.named_parameters()} == dict.fromkeys(expected, dtype)
    for name, tensor in found.named_parameters():
        assert torch.equal(tensor, expected[name]), name
    model.load_state_dict({name: tensor.float() for name, tensor in expected.items()}, strict=False)
    rows = torch.arange(3, 60)[None]
    with torch.no_grad():
        torch.testing.assert_close(found.float()(rows).logits, model(rows).logits, rtol=1e-4, atol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "made")
    if gemma:
        assert tokenizer.tokenize("in the\nx  é") == ["i", "n", "▁the", "<0x0A>", "x", "▁▁", "<0xC3>", "<0xA9>"]
        assert (ids(tokenizer, "the")[0], tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 1, 0)
        return
    assert [ids(tokenizer, text) for text in TEXTS] == [ids(tiny_tokenizer, text) for text in TEXTS]
    assert tokenizer.eos_token_id == tiny_tokenizer.eos_token_id


def test_a_chat_model_ends_its_turns(tiny_tokenizer, tmp_path):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer.backend_tokenizer, eos_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>", "<|user|>"]})
    keys = {"tokenizer.chat_template": CHAT, "tokenizer.ggml.padding_token_id": 0}
    file = write_gguf(tmp_path / "chat.gguf", random_model("llama", len(tokenizer)), tokenizer, metadata=keys)
    import_gguf(file, tmp_path / "made")
    loaded = load_model(ModelSettings(path=str(tmp_path / "made")))
    assert loaded.model.generation_config.eos_token_id == [0, tokenizer.convert_tokens_to_ids("<|end|>")]
    assert loaded.tokenizer.chat_template == CHAT
    assert loaded.tokenizer.pad_token_id == 0
    assert ids(loaded.tokenizer, "<|user|>a<|end|>") == ids(tokenizer, "<|user|>a<|end|>")


def test_text_is_split_as_the_file_says(llama, tiny_tokenizer, tmp_path):
    """With digits apart, as SmolLM's are; by names that transformers knows; and by BOS at the beginning."""
    text = TEXTS[1]
    import_gguf(
        write_gguf(tmp_path / "a.gguf", llama, tiny_tokenizer, metadata={"tokenizer.ggml.pre": "smollm"}),
        tmp_path / "a",
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer.backend_tokenizer)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    assert ids(AutoTokenizer.from_pretrained(tmp_path / "a"), text) == ids(tokenizer, text)
    keys = {"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.bos_token_id": 5, "tokenizer.ggml.add_bos_token": True}
    import_gguf(write_gguf(tmp_path / "b.gguf", llama, tiny_tokenizer, metadata=keys), tmp_path / "b")
    found = AutoTokenizer.from_pretrained(tmp_path / "b")
    assert ids(found, text)[0] == 5
    assert found.backend_tokenizer.model.ignore_merges


def test_rotary_positions_are_scaled_as_the_file_says(tiny_tokenizer, tmp_path):
    """By Llama 3.1's factors, which lie in a tensor, and by a linear factor; any others are refused."""
    scaled = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    model = random_model("llama", len(tiny_tokenizer), rope_parameters=scaled)
    plain = 500000.0 ** -np.arange(0, 1, 1 / 8)
    factors = (plain / model.model.rotary_emb.inv_freq.numpy()).astype(np.float32)
    keys = {"llama.rope.freq_base": 500000.0}
    file = write_gguf(tmp_path / "a.gguf", model, tiny_tokenizer, F32, keys, {"rope_freqs.weight": factors})
    import_gguf(file, tmp_path / "a")
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "a")
    torch.testing.assert_close(found.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)
    odd = write_gguf(tmp_path / "odd.gguf", model, tiny_tokenizer, F32, keys, {"rope_freqs.weight": factors + 1})
    assert "rope_freqs.weight" in refused(odd, tmp_path / "odd")
    linear = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    import_gguf(write_gguf(tmp_path / "b.gguf", model, tiny_tokenizer, metadata=linear), tmp_path / "b")
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "b")
    assert (found.config.rope_parameters["rope_type"], found.config.rope_parameters["factor"]) == ("linear", 4.0)
    yarn = {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}
    assert "yarn" in refused(write_gguf(tmp_path / "y.gguf", model, tiny_tokenizer, metadata=yarn), tmp_path / "y")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"general.architecture": "rwkv7"}, "architecture 'rwkv7', which transformers cannot read"),
        ({"general.type": "adapter"}, "another part ('adapter')"),
        ({"general.type": "mmproj"}, "another part ('mmproj')"),
        ({"split.count": 3}, "is one of 3 parts"),
        ({"tokenizer.ggml.model": "bert"}, "kind 'bert', which transformers cannot read"),
        ({"tokenizer.ggml.model": None}, "holds no tokenizer"),
        (
            {"tokenizer.ggml.pre": "deepseek-llm"},
            "'deepseek-llm' (tokenizer.ggml.pre), which transformers cannot follow",
        ),
        ({"tokenizer.ggml.pre": None}, "does not say how its tokenizer splits text"),
        ({"tokenizer.ggml.eos_token_id": None}, "names no token that ends a text"),
        ({"llama.block_count": 3}, "lacks weights that its architecture needs: model.layers.2."),
        ({"llama.block_count": 1}, "it would be another model"),
        ({"llama.embedding_length": 32}, "cannot be read as a causal language model"),
        ({"llama.attention.head_count": None}, "cannot be read as a causal language model"),
    ],
)
def test_a_file_that_is_no_readable_model_is_refused_by_name(keys, told, llama, tiny_tokenizer, tmp_path):
    file = write_gguf(tmp_path / "bad.gguf", llama, tiny_tokenizer, metadata=keys)
    line = refused(file, tmp_path / "made")
    assert told in line
    assert str(file) in line


def test_a_file_without_weights_or_with_unknown_ones_is_refused(llama, tiny_tokenizer, whole, tmp_path):
    strange = {"blk.0.attn_q.bias": np.ones(64, np.float32)}
    file = write_gguf(tmp_path / "more.gguf", llama, tiny_tokenizer, extra=strange)
    assert "it would be another model" in refused(file, tmp_path / "made")
    llama_without = random_model("llama", len(tiny_tokenizer))
    for name in ("model", "lm_head"):
        delattr(llama_without, name)
    file = write_gguf(tmp_path / "vocabulary.gguf", llama_without, tiny_tokenizer)
    assert "holds a vocabulary and no weights" in refused(file, tmp_path / "made")
    (tmp_path / "text.gguf").write_text("not one")
    assert "does not begin with GGUF" in refused(tmp_path / "text.gguf", tmp_path / "made")
    assert "No such file" in refused(tmp_path / "absent.gguf", tmp_path / "made")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "mine.txt").write_text("stays")
    with pytest.raises(InputError, match="is not empty"):
        import_gguf(whole, tmp_path / "made")
    assert [file.name for file in (tmp_path / "made").iterdir()] == ["mine.txt"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_cut_or_damaged_file_is_refused(data, whole, tmp_path):
    """Cut anywhere, and with any bytes of its header overwritten: refused in one line, or read as a header."""
    content = whole.read_bytes()
    cut = data.draw(st.integers(0, len(content) - 1))
    (tmp_path / "cut.gguf").write_bytes(content[:cut])
    with pytest.raises(InputError, match="is cut" if cut >= 4 else "is not a GGUF file"):
        import_gguf(tmp_path / "cut.gguf", tmp_path / "made")
    place = data.draw(st.integers(0, 12_000))
    damage = data.draw(st.binary(min_size=1, max_size=8))
    (tmp_path / "damaged.gguf").write_bytes(content[:place] + damage + content[place + len(damage) :])
    with suppress(InputError):
        read_gguf_header(tmp_path / "damaged.gguf")
