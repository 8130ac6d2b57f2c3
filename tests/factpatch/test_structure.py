import pytest

from factpatch.config import ModelSettings
from factpatch.errors import InputError
from factpatch.models import load_model
from factpatch.structure import default_module, locate


@pytest.fixture(scope="module")
def models(tiny_model):
    return {kind: load_model(ModelSettings(path=str(tiny_model(kind)))).model for kind in ("llama", "gpt2", "qwen2")}


def test_one_matrix_by_exact_name(models):
    assert locate(models["llama"], "2:mlp.down_proj").parameters == ("model.layers.2.mlp.down_proj.weight",)
    assert locate(models["gpt2"], "1:mlp.c_proj").parameters == ("transformer.h.1.mlp.c_proj.weight",)


def test_a_set_of_matrices_leaves_biases_and_norms_alone(models):
    location = locate(models["qwen2"], "0:self_attn")
    assert [name.split(".")[-2] for name in location.parameters] == ["q_proj", "k_proj", "v_proj", "o_proj"]
    assert all(name.endswith("weight") for name in location.parameters)
    assert len(locate(models["llama"], "3:").parameters) == 7


def test_two_never_matches_twenty_two():
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "llama",
        vocab_size=8,
        hidden_size=4,
        intermediate_size=4,
        num_hidden_layers=23,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    model = AutoModelForCausalLM.from_config(config)
    assert locate(model, "2:mlp.down_proj").parameters == ("model.layers.2.mlp.down_proj.weight",)
    assert locate(model, "22:mlp.down_proj").parameters == ("model.layers.22.mlp.down_proj.weight",)


def test_default_module_is_the_output_projection_of_the_mlp(models):
    assert {kind: default_module(model) for kind, model in models.items()} == {
        "llama": "mlp.down_proj",
        "gpt2": "mlp.c_proj",
        "qwen2": "mlp.down_proj",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("4:mlp.down_proj", "layers 0 to 3"),
        ("1:mlp.down", r"mlp\.down_proj"),
        ("1:input_layernorm", r"mlp\.down_proj"),
        ("mlp.down_proj", "LAYER:MODULE"),
        ("-1:mlp", "LAYER:MODULE"),
    ],
)
def test_what_matches_nothing_lists_what_exists(models, text, words):
    with pytest.raises(InputError, match=words):
        locate(models["llama"], text)
