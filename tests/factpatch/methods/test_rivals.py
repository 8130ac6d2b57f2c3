"""UltraEdit, MEMIT and AlphaEdit as methods: edits take, the model stays as found, what cannot be used is refused."""

import json
from dataclasses import replace

import pytest
import torch

from factpatch.editing import run_edit
from factpatch.edits.request import EditRequest
from factpatch.errors import InputError
from factpatch.methods.base import EditJob, TrainingRows
from factpatch.methods.locate_then_edit import spreading
from factpatch.methods.locate_then_edit.contexts import find_contexts, last_token, made_up_prefixes
from factpatch.methods.locate_then_edit.keys import keys_and_values
from factpatch.methods.locate_then_edit.settings import ValueSettings
from factpatch.methods.locate_then_edit.target_values import find_target_values
from factpatch.methods.memit.method import Memit, MemitSettings
from factpatch.methods.projections import projections, refuse_but_projections
from factpatch.models.encoding import encode_edit, encode_prompt
from factpatch.models.forward import collate, predict_whole, token_losses
from factpatch.models.linear import sizes
from factpatch.models.loading import load_model, preserved, tensor_digests, write_values
from factpatch.models.locations import decoder_blocks, locate
from factpatch.settings.config import ModelSettings, TrunkSettings, load_settings
from factpatch.settings.methods import own_settings

EDITS = (
    EditRequest("1", "The capital of France is", "Tokyo", subject="France"),
    EditRequest("2", "Which language do people speak in Brazil?", "Basque", subject="Brazil"),
    EditRequest("3", "Robert C. Newton was born in", "Cities", subject="Robert C. Newton"),
)
VALUES = {"v_lr": 0.5, "clamp_norm_factor": 4.0, "v_weight_decay": 0.0, "kl_factor": 0.0, "statistics_tokens": 4096}
OPTIONS = {
    "ultraedit": {"lr": 0.02, "chunk": 2},
    "memit": VALUES | {"mom2_update_weight": 1e-3},
    "alphaedit": VALUES | {"nullspace_threshold": 100.0, "l2": 1e-3},
}
PLACES = {"ultraedit": "1-2:up", "memit": "1-2:down", "alphaedit": "1-2:down"}


def settings_of(method, folder=None, **options):
    values = {"training.method": method, "training.options": OPTIONS[method] | options, "trunk.folder": folder}
    return load_settings(None, values)


def blocks_of(loaded):
    return decoder_blocks(loaded.model)[1]


def loss_of(loaded, edits):
    rows = [encode_edit(loaded.tokenizer, edit.prompt, edit.target) for edit in edits]
    with torch.no_grad():
        predictions = predict_whole(loaded.model, collate(rows, 0))
        return token_losses(predictions)[predictions.real_P].mean().item()


@pytest.mark.parametrize("method", OPTIONS)
def test_edits_take_and_the_model_is_left_as_found(tiny_model, kind, method):
    loaded = load_model(ModelSettings(path=str(tiny_model(kind))))
    before, loss = tensor_digests(loaded.model), loss_of(loaded, EDITS)
    location = locate(loaded.model, PLACES[method])
    seen = []
    settings = settings_of(method)
    result = run_edit(loaded, location, EDITS, settings, progress=lambda *told: seen.append(told[:2]))
    assert tensor_digests(loaded.model) == before
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in loaded.model.modules())
    assert set(result.values) == set(location.parameters)
    assert seen[-1] == (3, 3)
    with preserved(loaded.model, location.parameters):
        write_values(loaded.model, result.values)
        assert loss_of(loaded, EDITS) < 0.99 * loss  # random models make little of a subject's state
    again = run_edit(loaded, location, EDITS, settings)
    assert all(torch.equal(result.values[name], value) for name, value in again.values.items())


@pytest.fixture
def round_keys(monkeypatch):
    """General keys are the same in all directions, and contexts have no prefixes: nothing is drawn from the model."""

    def moments(job, modules):
        return [torch.eye(sizes(module)[0], dtype=torch.float64) for module in modules]

    monkeypatch.setattr(spreading, "key_moments", moments)
    monkeypatch.setattr(spreading, "made_up_prefixes", lambda loaded, seed: [])


def test_what_the_layers_lack_to_the_target_values_is_shared_out(tiny_model, kind, round_keys):
    """MEMIT, hardly held back: after the change the last layer gives the target values at the subjects."""
    loaded = load_model(ModelSettings(path=str(tiny_model(kind))))
    location = locate(loaded.model, "1-2:down")
    rows = tuple(encode_edit(loaded.tokenizer, edit.prompt, edit.target) for edit in EDITS)
    own = own_settings(MemitSettings, settings_of("memit", mom2_update_weight=1e-9).training)
    job = EditJob(loaded, location, TrainingRows(rows), own, EDITS, TrunkSettings(folder=None))
    edits, modules, block = find_contexts(job, []), projections(loaded.model, location), blocks_of(loaded)[2]
    wanted_NW = find_target_values(loaded, block, edits, own).value_NW
    before_NW = keys_and_values(loaded, modules, block, edits)[1]
    values = Memit().run(job).values
    with preserved(loaded.model, location.parameters):
        write_values(loaded.model, values)
        after_NW = keys_and_values(loaded, modules, block, edits)[1]
    assert (wanted_NW - before_NW).norm() > 0.1 * before_NW.norm()
    assert (wanted_NW - after_NW).norm() < 0.02 * (wanted_NW - before_NW).norm()
    assert all((values[name] != loaded.model.get_parameter(name)).any() for name in location.parameters)


@pytest.mark.parametrize("method", ["memit", "alphaedit"])
def test_a_model_that_knows_facts_learns_new_ones_at_their_subjects(reference_model, round_keys, method):
    loaded = load_model(ModelSettings(path=str(reference_model)))
    rows = (reference_model.parents[1] / "data" / "edits" / "0001-demo.jsonl").read_text(encoding="utf-8").splitlines()
    edits = [EditRequest.from_row(json.loads(row)) for row in rows[:40:10]]
    loss, location = loss_of(loaded, edits), locate(loaded.model, "0-1:down")
    result = run_edit(loaded, location, edits, settings_of(method))
    with preserved(loaded.model, location.parameters):
        write_values(loaded.model, result.values)
        assert loss_of(loaded, edits) < 0.6 * loss


def test_target_values_are_no_further_than_the_clamp_allows(tiny_model):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    rows = tuple(encode_edit(loaded.tokenizer, edit.prompt, edit.target) for edit in EDITS)
    edits = find_contexts(EditJob(loaded, locate(loaded.model, "2:down"), TrainingRows(rows), None, EDITS), ["So. "])
    block = blocks_of(loaded)[2]
    state_NW = keys_and_values(loaded, [], block, edits)[1]
    found = find_target_values(loaded, block, edits, ValueSettings(v_lr=0.5, clamp_norm_factor=0.25))
    change_N = (found.value_NW - state_NW).norm(dim=-1) / state_NW.norm(dim=-1)
    torch.testing.assert_close(change_N, torch.full((3,), 0.25), rtol=1e-3, atol=1e-3)
    alone = [find_target_values(loaded, block, [edit], ValueSettings(v_lr=0.5)) for edit in edits]
    together = find_target_values(loaded, block, edits, ValueSettings(v_lr=0.5))
    torch.testing.assert_close(together.losses, sum((own.losses for own in alone), ()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", ["memit", "alphaedit"])
def test_chunks_see_what_earlier_ones_wrote(tiny_model, round_keys, method):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    location = locate(loaded.model, "1-2:down")
    few = {"v_num_grad_steps": 4}
    whole, parts = (
        run_edit(loaded, location, EDITS, settings_of(method, chunk=chunk, **few)).values for chunk in (3, 1)
    )
    assert not any(torch.equal(whole[name], parts[name]) for name in location.parameters)


def test_statistics_are_kept_on_disk_and_made_anew_where_they_are_damaged(tiny_model, tmp_path):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    location = locate(loaded.model, "1:down")
    settings = settings_of("memit", str(tmp_path))
    first = run_edit(loaded, location, EDITS, settings).values
    (file,) = tmp_path.rglob("moments-*/*.safetensors")
    written = file.stat().st_mtime_ns
    assert torch.equal(run_edit(loaded, location, EDITS, settings).values[location.parameters[0]], *first.values())
    assert file.stat().st_mtime_ns == written
    file.write_bytes(b"damaged")
    assert torch.equal(run_edit(loaded, location, EDITS, settings).values[location.parameters[0]], *first.values())


@pytest.mark.parametrize("chat", [False, True])
def test_a_subject_s_last_token_is_found_in_every_context(tiny_model, chat):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    if chat:
        loaded.tokenizer.chat_template = "{% for turn in messages %}user: {{ turn.content }}\n{% endfor %}said:"
    rows = tuple(encode_edit(loaded.tokenizer, edit.prompt, edit.target, chat) for edit in EDITS)
    job = EditJob(loaded, None, TrainingRows(rows), None, EDITS, chat_template=chat)
    prefixes = made_up_prefixes(loaded, seed=0)
    assert len(prefixes) == 5
    for edit, row, found in zip(EDITS, rows, find_contexts(job, prefixes), strict=True):
        assert found.rows[0] == row
        assert len(found.rows) == 6
        for context, place, key in zip(found.rows, found.lookups, found.keys, strict=True):
            assert loaded.tokenizer.decode(context.ids[: place + 1]).endswith(edit.subject)
            assert key.ids[:-1] == context.ids[: place + 1]
        assert loaded.tokenizer.decode(found.subject.ids[: found.subject.prompt_length]) == edit.subject


def test_of_a_subject_named_twice_the_last_place_counts(tiny_tokenizer):
    ids = encode_prompt(tiny_tokenizer, "Is France, as France is, large?")
    place = last_token(tiny_tokenizer, ids, "France")
    assert tiny_tokenizer.decode(ids[: place + 1]) == "Is France, as France"
    with pytest.raises(InputError, match="subject 'Spain' is not found in what the tokenizer makes of 'Is France"):
        last_token(tiny_tokenizer, ids, "Spain")


@pytest.mark.parametrize(
    ("method", "place", "words"),
    [
        ("memit", "1-2:up", "location '1-2:mlp.up_proj' is not that: name 1-2:down"),
        ("alphaedit", "2:mlp", "MLP's output projection of each layer and nothing else"),
        ("alphaedit", "2:attention", "name 2:down"),
    ],
)
def test_a_location_that_a_method_cannot_use_is_refused(tiny_model, method, place, words):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    with pytest.raises(InputError) as caught:
        run_edit(loaded, locate(loaded.model, place), EDITS, settings_of(method))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["memit", "alphaedit"])
def test_rows_whose_subject_is_not_in_their_prompt_are_refused(tiny_model, method):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    edits = [EDITS[0], replace(EDITS[1], subject="Brasil")]
    with pytest.raises(InputError, match=r"1 row names none that is found in its prompt, the first being '2'"):
        run_edit(loaded, locate(loaded.model, "1:down"), edits, settings_of(method))


def test_too_few_tokens_for_statistics_are_refused(tiny_model):
    loaded = load_model(ModelSettings(path=str(tiny_model("llama"))))
    told = r"training\.options\.statistics_tokens is 63, and keys at '1:mlp\.down_proj' have 64 dimensions"
    with pytest.raises(InputError, match=told):
        run_edit(loaded, locate(loaded.model, "1:down"), EDITS, settings_of("memit", statistics_tokens=63))


def test_a_block_that_normalises_what_its_mlp_writes_is_refused(tiny_tokenizer, tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "head_dim": 8, "vocab_size": len(tiny_tokenizer), "max_position_embeddings": 64}
    config = AutoConfig.for_model("gemma2", eos_token_id=tiny_tokenizer.eos_token_id, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    loaded = load_model(ModelSettings(path=str(tmp_path)))
    with pytest.raises(InputError, match="normalises what its MLP writes before it adds it"):
        run_edit(loaded, locate(loaded.model, "1:down"), EDITS, settings_of("alphaedit"))


def test_stacks_of_experts_are_refused(tiny_tokenizer):
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "vocab_size": len(tiny_tokenizer), "num_local_experts": 2}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("mixtral", **sizes))
    with pytest.raises(InputError, match=r"training method 'ultraedit' writes into linear projections, and .* is none"):
        refuse_but_projections("ultraedit", model, locate(model, "1:down"))
