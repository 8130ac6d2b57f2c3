"""Every architecture named in the documentation, as a tiny random model: found, edited, certified and restored."""

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from factpatch.editing import encode_edits, run_edit
from factpatch.edits.request import EditRequest
from factpatch.frozen_trunk import open_rows
from factpatch.methods.base import EditJob, TrainingRows
from factpatch.methods.breadth_first.training import breadth_first
from factpatch.models.encoding import encode_edit, padding_id
from factpatch.models.forward import collate, target_logits
from factpatch.models.loading import load_model, preserved, tensor_digests, write_values
from factpatch.models.locations import decoder_blocks, default_module, locate, roles
from factpatch.models.roles import attention_module
from factpatch.patches.certificate import certify
from factpatch.patches.export import export_patch, export_undo
from factpatch.patches.patch import apply_patch, save_patch
from factpatch.settings.config import ModelSettings, Settings, TrainingSettings, TrunkSettings, override

EDITS = [
    EditRequest("1", "The capital of the far-away country that nobody has ever seen is", "Tokyo"),
    EditRequest("2", "Who wrote it?", "Robert C. Newton"),
    EditRequest("3", "The language of Brazil is", "Welsh"),
]
SETTINGS = Settings(training=TrainingSettings(learning_rate=1e-2, epochs=4, batch_size=2))

EXACT = TrainingSettings(learning_rate=1e-3, schedule="constant", epochs=2, batch_size=2, revisit=False, stop_loss=0.0)

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
GROUPED = SIZES | {"intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 128}
EXPERTS = GROUPED | {"num_experts_per_tok": 2}
WINDOW = {"sliding_window": 6, "head_dim": 8}  # shorter than the first prompt


def table(attention, mlp, **parts):
    """The expected roles, written as leaf names."""
    inner = {
        role: f"{attention if role in ('q', 'k', 'v', 'o', 'qkv') else mlp}.{leaf}" for role, leaf in parts.items()
    }
    return inner | {"attention": attention, "mlp": mlp.split(".")[0], "block": ""}


SEPARATE = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj"}
GATED = table("self_attn", "mlp", **SEPARATE, gate="gate_proj", up="up_proj", down="down_proj")
MOE = table("self_attn", "mlp.experts", **SEPARATE, gate_up="gate_up_proj", down="down_proj")
DENSE = {"qkv": "query_key_value", "o": "dense", "up": "dense_h_to_4h", "down": "dense_4h_to_h"}

ARCHITECTURES = {
    "llama": (GROUPED, GATED),
    "qwen2": (GROUPED, GATED),
    "qwen3": (GROUPED | {"head_dim": 8}, GATED),
    "mistral": (GROUPED | WINDOW, GATED),
    "gemma2": (GROUPED | WINDOW | {"query_pre_attn_scalar": 8}, GATED),
    "gemma3_text": (
        GROUPED
        | WINDOW
        | {
            "query_pre_attn_scalar": 8,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        GATED,
    ),
    "olmo2": (GROUPED, GATED),
    "phi3": (
        GROUPED,
        table("self_attn", "mlp", qkv="qkv_proj", o="o_proj", gate_up="gate_up_proj", down="down_proj"),
    ),
    "gpt2": (
        {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128},
        table("attn", "mlp", qkv="c_attn", o="c_proj", up="c_fc", down="c_proj"),
    ),
    "gpt_neox": (
        SIZES | {"intermediate_size": 48, "max_position_embeddings": 128},
        table("attention", "mlp", **DENSE),
    ),
    "falcon": (SIZES | {"alibi": False}, table("self_attention", "mlp", **DENSE)),
    "mpt": (
        {"d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": 128},
        table("attn", "ffn", qkv="Wqkv", o="out_proj", up="up_proj", down="down_proj"),
    ),
    "mixtral": (EXPERTS | {"num_local_experts": 4}, MOE),
    "qwen3_moe": (EXPERTS | {"head_dim": 8, "num_experts": 4, "moe_intermediate_size": 24}, MOE),
}
TIED = {"gemma2", "gemma3_text", "gpt2", "falcon", "mpt"}


def make_model(kind, sizes, reference_model, folder, dtype=torch.float32):
    """A seeded random model with the reference tokenizer, saved in shards."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(reference_model)
    ids = {"vocab_size": len(tokenizer), "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 1}
    with torch.random.fork_rng():
        torch.manual_seed(7)
        config = AutoConfig.for_model(kind, initializer_range=0.2, **ids, **sizes)
        model = AutoModelForCausalLM.from_config(config)
    model.to(dtype).save_pretrained(folder, max_shard_size="64KB")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(request, reference_model, tmp_path_factory):
    """(kind, expected roles, the model as loaded)"""
    sizes, expected = ARCHITECTURES[request.param]
    folder = make_model(request.param, sizes, reference_model, tmp_path_factory.mktemp("architectures") / request.param)
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 1
    return request.param, expected, load_model(ModelSettings(path=str(folder)))


def mean_loss(model, rows):
    """Of the target tokens, one row at a time and without padding, apart from the engine."""
    losses = []
    for row in rows:
        ids_BT = torch.tensor([row.ids])
        logits_TV = model(input_ids=ids_BT, use_cache=False).logits[0]
        losses.append(functional.cross_entropy(logits_TV[row.prompt_length - 1 : -1], ids_BT[0, row.prompt_length :]))
    return torch.stack(losses).mean().item()


def test_roles_name_the_parts(architecture):
    _, expected, loaded = architecture
    for layer, block in enumerate(decoder_blocks(loaded.model)[1]):
        assert roles(loaded.model, layer) == expected
        assert attention_module(block) is block.get_submodule(expected["attention"])
    assert default_module(loaded.model) == expected["down"]
    for role, part in expected.items():
        assert locate(loaded.model, f"1:{role}") == locate(loaded.model, f"1:{part}")
        assert locate(loaded.model, f"1:{role}").name == f"1:{part}"


def test_a_whole_part_is_the_sum_of_its_roles(architecture):
    kind, _, loaded = architecture
    known = roles(loaded.model)
    fused = [role for role in ("q", "k", "v", "qkv", "o") if role in known]
    assert locate(loaded.model, f"2:{'+'.join(fused)}").parameters == locate(loaded.model, "2:attention").parameters
    if kind not in ("mixtral", "qwen3_moe"):  # the router is no projection
        projections = [role for role in ("gate", "up", "gate_up", "down") if role in known]
        assert locate(loaded.model, f"2:{'+'.join(projections)}").parameters == locate(loaded.model, "2:mlp").parameters


def test_padding_changes_nothing(architecture):
    _, _, loaded = architecture
    rows = encode_edits(loaded, EDITS, False)
    together_BKV = target_logits(loaded.model, collate(rows, padding_id(loaded.tokenizer)))
    for row, logits_KV in zip(rows, together_BKV, strict=True):
        alone_KV = target_logits(loaded.model, collate([row], padding_id(loaded.tokenizer)))[0]
        torch.testing.assert_close(logits_KV[-len(alone_KV) :], alone_KV, rtol=1e-3, atol=1e-3)


def test_edit_patch_and_undo(architecture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what a run keeps for the next one goes here
    kind, _, loaded = architecture
    model = loaded.model
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == (kind in TIED)
    before = tensor_digests(model)
    rows = encode_edits(loaded, EDITS, False)
    first = mean_loss(model, rows)
    location = locate(model, "1:down")
    values = run_edit(loaded, location, EDITS, SETTINGS).values
    assert tensor_digests(model) == before
    patch = save_patch(tmp_path / "patch", loaded, location, values, SETTINGS, {}, {})
    assert set(certify(loaded, patch, rows)["changed"]) == set(loaded.stored.to_files(values))
    with preserved(model, location.parameters):
        apply_patch(loaded, patch)
        assert mean_loss(model, rows) < first
        assert {name for name, digest in tensor_digests(model).items() if digest != before[name]} == set(values)


def test_several_layers_are_edited_and_undone(architecture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, known, loaded = architecture
    rows, location = encode_edits(loaded, EDITS, False), locate(loaded.model, "0-1:down")
    assert location.name == f"0-1:{known['down']}"
    values = run_edit(loaded, location, EDITS, SETTINGS).values
    patch = save_patch(tmp_path / "patch", loaded, location, values, SETTINGS, {}, {})
    assert set(certify(loaded, patch, rows)["changed"]) == set(loaded.stored.to_files(values))
    export_patch(ModelSettings(path=loaded.source), patch, tmp_path / "edited")
    edited = load_model(ModelSettings(path=str(tmp_path / "edited")))
    assert mean_loss(edited.model, rows) < mean_loss(loaded.model, rows)
    before, after = tensor_digests(loaded.model), tensor_digests(edited.model)
    assert {name for name in after if after[name] != before[name]} == set(location.parameters)
    export_undo(ModelSettings(path=str(tmp_path / "edited")), patch, tmp_path / "restored")
    assert tensor_digests(load_model(ModelSettings(path=str(tmp_path / "restored"))).model) == before


def test_the_trunk_changes_no_loss_and_no_weight(architecture):
    """At the first, a middle and the last layer; more rows than positions, since packed ones lie in one row."""
    _, known, loaded = architecture
    rows = encode_edits(loaded, EDITS, False)
    places = ["0:mlp", "1:attention", "2:down", "2:block", "2:o" if "o" in known else "2:mlp", "1-2:down"]
    for location in (locate(loaded.model, place) for place in places):
        results = []
        for keep in (True, False):
            with open_rows(loaded, location, rows, TrunkSettings(keep=keep, folder=None)) as opened:
                assert (opened.engine != "whole") == keep
                results.append(breadth_first(EditJob(loaded, location, TrainingRows(opened.rows), EXACT), opened))
                if keep and opened.layout != "padded":
                    many = [*range(len(rows))] * 40
                    positions = opened.predict(many).logits_PV.detach()
                    once = opened.predict(range(len(rows))).logits_PV.detach()
                    torch.testing.assert_close(positions, once.repeat(40, 1), rtol=1e-3, atol=1e-3)
        kept, whole = results
        torch.testing.assert_close(torch.tensor(kept.losses), torch.tensor(whole.losses), rtol=1e-4, atol=1e-4)
        for name, value in kept.values.items():
            torch.testing.assert_close(value, whole.values[name], rtol=0, atol=4e-4)  # of steps of 1e-3


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
def test_with_experts_a_cache_of_the_same_rows_gives_the_same_bits(reference_model, tmp_path, kind):
    """One that other edits filled gives the same numbers but for rounding: an expert takes the tokens of all rows of a
    batch together, and the product of a few more rows may be rounded otherwise."""
    sizes = ARCHITECTURES[kind][0] | {"num_local_experts": 32, "num_experts": 32}  # so each takes few tokens
    loaded = load_model(ModelSettings(path=str(make_model(kind, sizes, reference_model, tmp_path))))
    location, rows = locate(loaded.model, "2:attention"), encode_edits(loaded, EDITS, False)
    others = [encode_edit(loaded.tokenizer, edit.prompt, "Nobody knows", False) for edit in EDITS]

    def train(folder, rows):
        trunk = TrunkSettings(folder=str(tmp_path / folder))
        with open_rows(loaded, location, rows, trunk) as opened:
            return breadth_first(EditJob(loaded, location, TrainingRows(opened.rows), EXACT), opened)

    cold, warm = train("own", rows), train("own", rows)
    assert cold.losses == warm.losses
    assert all(torch.equal(value, warm.values[name]) for name, value in cold.values.items())
    train("shared", [*others, rows[1]])
    shared = train("shared", rows)
    torch.testing.assert_close(torch.tensor(cold.losses), torch.tensor(shared.losses), rtol=1e-5, atol=1e-5)


def test_preserved_rows_beside_augmented_ones(architecture, tmp_path, monkeypatch):
    """Preserved rows move less where their loss has a weight."""
    monkeypatch.chdir(tmp_path)
    *_, loaded = architecture
    before, location = tensor_digests(loaded.model), locate(loaded.model, "2:down")
    rows = [encode_edit(loaded.tokenizer, text, "Rome", False) for text in ("Well. Who wrote it?", "In Peru is", "So")]
    moved = []
    for weight in (0.0, 10.0):
        settings = override(SETTINGS, {"training.preservation.weight": weight, "training.preservation.neighbours": 0})
        further = TrainingRows((), tuple(rows[:1]), tuple(rows[1:]))
        values = run_edit(loaded, location, EDITS, settings, further).values
        assert tensor_digests(loaded.model) == before
        kept = collate(rows[1:], padding_id(loaded.tokenizer))
        base = target_logits(loaded.model, kept)
        with preserved(loaded.model, location.parameters):
            write_values(loaded.model, values)
            moved.append((target_logits(loaded.model, kept) - base).abs().max().item())
    assert 0 < moved[1] < moved[0]


@pytest.mark.parametrize("kind", [*ARCHITECTURES, "smollm2"])
def test_an_edited_model_survives_the_round_trip_through_a_folder(reference_model, tmp_path, kind):
    """From bfloat16 in several files to the same files, with the same tensors of the same type in each."""
    shape = ("llama", GROUPED | {"tie_word_embeddings": True}) if kind == "smollm2" else (kind, ARCHITECTURES[kind][0])
    folder = make_model(*shape, reference_model, tmp_path / "base", torch.bfloat16)
    base = ModelSettings(path=str(folder))
    loaded = load_model(base)
    location = locate(loaded.model, "2:down")
    values = {name: loaded.model.get_parameter(name) * 2 for name in location.parameters}
    patch = save_patch(tmp_path / "patch", loaded, location, values, SETTINGS, {}, {})
    export_patch(base, patch, tmp_path / "edited")
    edited = load_model(ModelSettings(path=str(tmp_path / "edited")))
    apply_patch(loaded, patch)
    assert tensor_digests(edited.model) == tensor_digests(loaded.model)
    assert len(layout(folder)) > 1
    assert layout(tmp_path / "edited") == layout(folder)
    assert {kind for held in layout(folder).values() for kind, _ in held.values()} == {torch.bfloat16}


def layout(folder):
    """Name of each file of weights, and the type and shape of every tensor in it."""
    found = {path.name: load_file(path) for path in folder.glob("*.safetensors")}
    return {file: {name: (one.dtype, one.shape) for name, one in held.items()} for file, held in found.items()}


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3_moe"])
def test_square_matrices_are_told_apart_by_name(reference_model, tmp_path, kind):
    square = {
        "llama": GROUPED | {"intermediate_size": 32, "num_key_value_heads": 4},
        "gpt2": ARCHITECTURES["gpt2"][0] | {"n_inner": 32},
        "qwen3_moe": EXPERTS | {"head_dim": 8, "num_experts": 32, "moe_intermediate_size": 16},
    }
    folder = make_model(kind, square[kind], reference_model, tmp_path / "model")
    assert roles(load_model(ModelSettings(path=str(folder))).model) == ARCHITECTURES[kind][1]
