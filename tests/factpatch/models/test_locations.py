import pytest

from factpatch.errors import InputError
from factpatch.localization.places import candidate_locations
from factpatch.models.loading import load_model
from factpatch.models.locations import decoder_blocks, default_module, layers_with, locate, roles
from factpatch.models.roles import attention_module
from factpatch.settings.config import LocalizationSettings, ModelSettings

SMALL = {
    "vocab_size": 8,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": None,
}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}


def small(kind, **sizes):
    from transformers import AutoConfig, AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SMALL | sizes))


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
    model = small("llama", hidden_size=4, num_hidden_layers=23)
    assert locate(model, "2:mlp.down_proj").parameters == ("model.layers.2.mlp.down_proj.weight",)
    assert locate(model, "22:mlp.down_proj").parameters == ("model.layers.22.mlp.down_proj.weight",)


def test_several_layers_hold_the_module_of_each(models):
    location = locate(models["llama"], "1-3:down")
    assert location.parameters == tuple(f"model.layers.{layer}.mlp.down_proj.weight" for layer in (1, 2, 3))
    assert (location.name, location.layer, list(location.layers)) == ("1-3:mlp.down_proj", 1, [1, 2, 3])
    assert locate(models["llama"], location.name) == location
    assert location.to_json() == {
        "name": "1-3:mlp.down_proj",
        "layer": 1,
        "last_layer": 3,
        "module": "mlp.down_proj",
    }
    assert locate(models["llama"], "2-2:down") == locate(models["llama"], "2:down")
    assert "last_layer" not in locate(models["llama"], "2:down").to_json()


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
        ("2-4:mlp.down_proj", "layer 4 does not exist; this model has layers 0 to 3"),
        ("3-1:down", "write the lower layer first, 1-3:down"),
        ("1-3:mlp.down", r"no module 'mlp\.down' in layer 1"),
        ("1-:down", "FIRST-LAST:MODULE"),
        ("1:mlp.down", r"mlp\.down_proj"),
        ("1:input_layernorm", r"mlp\.down_proj"),
        ("1:qkv", r"no role 'qkv' in layer 1; there are the roles q, k, v, o, gate, up, down, attention"),
        ("1:down+mlp.down", r"no module 'mlp\.down'"),
        ("1:gate+", "LAYER:MODULE"),
        ("1:+", "LAYER:MODULE"),
        ("mlp.down_proj", "LAYER:MODULE"),
        ("-1:mlp", "LAYER:MODULE"),
    ],
)
def test_what_matches_nothing_lists_what_exists(models, text, words):
    with pytest.raises(InputError, match=words):
        locate(models["llama"], text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("3:down", "3:mlp.down_proj"),
        ("3:block", "3:"),
        ("2:gate+up", "2:mlp.gate_proj+mlp.up_proj"),
        ("2:mlp.up_proj+gate", "2:mlp.gate_proj+mlp.up_proj"),
        ("2:down+mlp", "2:mlp"),
        ("1:mlp+attention", "1:self_attn+mlp"),
        ("1:q+block", "1:"),
    ],
)
def test_roles_and_sets_resolve_to_literal_names(models, text, name):
    location = locate(models["llama"], text)
    assert location.name == name
    assert location == locate(models["llama"], name)


def test_a_set_holds_the_matrices_of_its_parts(models):
    assert locate(models["llama"], "2:gate+up").parameters == (
        "model.layers.2.mlp.gate_proj.weight",
        "model.layers.2.mlp.up_proj.weight",
    )


def test_a_literal_name_wins_over_a_role():
    model = small("llama")
    model.model.layers[0].down = model.model.layers[0].self_attn.q_proj
    del model.model.layers[0].self_attn.q_proj
    assert locate(model, "0:down").parameters == ("model.layers.0.down.weight",)
    assert locate(model, "1:down").parameters == ("model.layers.1.mlp.down_proj.weight",)


def test_an_mlp_without_a_module_of_its_own():
    model = small("opt", ffn_dim=48, word_embed_proj_dim=32)
    assert roles(model)["mlp"] == "fc1+fc2"
    assert locate(model, "1:mlp").name == "1:fc1+fc2"
    assert default_module(model) == "fc2"


def test_layers_that_differ_are_resolved_one_by_one():
    model = small(
        "deepseek_v3", n_routed_experts=4, n_group=1, topk_group=1, first_k_dense_replace=1, **EXPERTS, **LATENT
    )
    assert "q" not in roles(model)  # in two steps through a narrow space: no one matrix
    assert roles(model)["o"] == "self_attn.o_proj"
    assert default_module(model) == "down"
    candidates = candidate_locations(model, LocalizationSettings(modules=("down",)))
    assert [location.module for location in candidates] == [
        "mlp.down_proj",
        "mlp.experts.down_proj+mlp.shared_experts.down_proj",
    ]
    assert layers_with(model, "mlp.experts") == [1]
    assert roles(model, 1)["gate"] == "mlp.shared_experts.gate_proj"


def test_stacked_experts_are_named_by_parameter_and_their_biases_stay():
    model = small("gpt_oss", num_local_experts=4, head_dim=8, **EXPERTS)
    assert locate(model, "1:mlp.experts.down_proj").parameters == ("model.layers.1.mlp.experts.down_proj",)
    assert [name.rpartition(".")[2] for name in locate(model, "1:mlp.experts").parameters] == [
        "gate_up_proj",
        "down_proj",
    ]


def test_the_text_layers_of_a_multimodal_model_are_meant():
    from transformers import AutoConfig, AutoModelForCausalLM

    vision = SMALL | {"num_hidden_layers": 5, "image_size": 28, "patch_size": 14}
    config = AutoConfig.for_model("gemma3", text_config=SMALL | {"head_dim": 8}, vision_config=vision)
    name, blocks = decoder_blocks(AutoModelForCausalLM.from_config(config))
    assert (name, len(blocks)) == ("model.language_model.layers", 2)


def test_what_the_structure_does_not_show_is_refused_by_name():
    model = small("mamba")
    with pytest.raises(InputError, match=r"MambaForCausalLM has no MLP output projection.* mixer\.out_proj"):
        default_module(model)
    with pytest.raises(InputError, match="no role 'down' in layer 0"):
        layers_with(model, "down")
    assert locate(model, "1:mixer.out_proj").parameters == ("backbone.layers.1.mixer.out_proj.weight",)
    block = decoder_blocks(small("llama"))[1][0]
    del block.self_attn
    with pytest.raises(InputError, match=r"LlamaDecoderLayer cannot be told apart into attention and MLP.* none does"):
        attention_module(block)


def test_a_tensor_that_serves_two_layers_is_refused():
    model = small("llama")
    model.model.layers[1].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight
    with pytest.raises(InputError, match=r"layers\.0\.mlp\.up_proj\.weight is one tensor with model\.layers\.1"):
        locate(model, "0:up")
    assert locate(model, "0:down").parameters == ("model.layers.0.mlp.down_proj.weight",)


@pytest.mark.parametrize("dtype", ["int8", "float8_e4m3fn"])
def test_quantised_weights_are_refused(dtype):
    import torch

    model = small("llama").requires_grad_(False)
    projection = model.model.layers[0].mlp.down_proj
    projection.weight = torch.nn.Parameter(projection.weight.to(getattr(torch, dtype)), requires_grad=False)
    with pytest.raises(InputError, match=f"down_proj.weight is quantised \\({dtype}\\)"):
        locate(model, "0:down")


def test_candidates_may_be_roles_and_come_once(models):
    settings = LocalizationSettings(modules=("down", "mlp.c_proj", "qkv+o"))
    names = [location.name for location in candidate_locations(models["gpt2"], settings)]
    assert names[:2] == ["0:mlp.c_proj", "0:attn.c_attn+attn.c_proj"]
    assert len(names) == 8
