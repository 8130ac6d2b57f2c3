"""Where a model is cut for each location, and that nothing is cut that depends on what is trained."""

import pytest
import torch

from factpatch.frozen_trunk import open_rows, opening
from factpatch.frozen_trunk.capture import capture
from factpatch.frozen_trunk.opening import make_plan
from factpatch.frozen_trunk.plan import kept_bytes, possible_plans
from factpatch.models.encoding import encode_edit
from factpatch.models.forward import collate, predict_whole
from factpatch.models.loading import load_model, preserved, tensor_digests
from factpatch.models.locations import locate
from factpatch.settings.config import ModelSettings, TrunkSettings

PAIRS = (("The capital of France is", "Tokyo"), ("Who?", "Robert C. Newton"), ("東京 is in", "Brazil"))
MEMORY = TrunkSettings(folder=None)

# location -> engine, kept sites, parts of the block that need not run
PLANS = {
    "llama": {
        "3:down": ("packed", ("block", "mixer", "entry"), ("mlp.gate_proj", "mlp.up_proj")),
        "3:up": ("packed", ("block", "mixer"), ()),  # the gate takes part: its output meets that of `up`
        "3:mlp": ("packed", ("block", "mixer"), ()),
        "3:attention": ("padding-free", ("block",), ()),
        "3:block": ("padding-free", ("block",), ()),
        "1:down": ("padding-free", ("block", "mixer"), ()),
        "1:v": ("padding-free", ("block",), ()),
        "0:mlp": ("padding-free", ("block", "mixer"), ()),
        "2-3:down": ("padding-free", ("block", "mixer"), ()),  # from the lowest layer up
        "1-3:v": ("padding-free", ("block",), ()),
    },
    "gpt2": {
        "3:down": ("packed", ("block", "mixer", "entry"), ("mlp.c_fc",)),
        "3:up": ("packed", ("block", "mixer", "entry"), ()),
        "3:attention": ("padding-free", ("block",), ()),
        "2:mlp": ("padding-free", ("block", "mixer"), ()),
        "1-3:down": ("padding-free", ("block", "mixer"), ()),
    },
}


def load(folder, **settings):
    loaded = load_model(ModelSettings(path=str(folder), **settings))
    return loaded, [encode_edit(loaded.tokenizer, *pair) for pair in PAIRS]


@pytest.mark.parametrize(("kind", "place"), [(kind, place) for kind, places in PLANS.items() for place in places])
def test_the_plan_of_a_location(tiny_model, kind, place):
    loaded, rows = load(tiny_model(kind))
    before = tensor_digests(loaded.model)
    location = locate(loaded.model, place)
    with open_rows(loaded, location, rows, MEMORY) as opened:
        plan = opened.plan
        silenced = tuple(name.partition(f".{location.layer}.")[2] for name, _ in plan.silenced)
        assert (opened.engine, plan.sites, silenced) == PLANS[kind][place]
        assert plan.layer == location.layer
        assert opened.layout == plan.layout
        targets = [len(row.ids) - row.prompt_length for row in rows]
        assert opened.lengths == (targets if plan.layout == "packed" else [len(row.ids) - 1 for row in rows])
    kept = capture(loaded, [plan], rows)[0].shards[0]
    assert kept_bytes(loaded.model, plan, rows) == {site: tensor.nbytes for site, tensor in kept.items()}
    assert tensor_digests(loaded.model) == before
    assert not any("forward" in module.__dict__ or module._forward_pre_hooks for module in loaded.model.modules())


@pytest.mark.parametrize(("location", "settings"), [(None, MEMORY), ("1:mlp", TrunkSettings(keep=False))])
def test_without_a_location_or_a_trunk_the_whole_model_runs(tiny_model, location, settings):
    loaded, rows = load(tiny_model("llama"))
    with open_rows(loaded, location and locate(loaded.model, location), rows, settings) as opened:
        assert (opened.engine, opened.plan) == ("whole", None)
        assert opened.lengths == [len(row.ids) - 1 for row in rows]


def test_the_head_side_follows_the_located_tensors(tiny_model, kind):
    loaded, rows = load(tiny_model(kind))
    for place in ("1:mlp", "3:down", "3:attention", "2:block", "1-2:down"):
        location = locate(loaded.model, place)
        with (
            open_rows(loaded, location, rows, MEMORY) as opened,
            preserved(loaded.model, location.parameters),
            torch.no_grad(),
        ):
            for name in location.parameters:
                loaded.model.get_parameter(name).mul_(1.5)
            found = opened.predict([2, 0])
            values = {name: loaded.model.get_parameter(name).clone() for name in location.parameters}
        with preserved(loaded.model, location.parameters), torch.no_grad():
            for name, value in values.items():
                loaded.model.get_parameter(name).copy_(value)
            wanted = predict_whole(loaded.model, collate([rows[2], rows[0]], 0))
        torch.testing.assert_close(found.logits_PV[found.real_P], wanted.logits_PV[wanted.real_P], rtol=1e-4, atol=1e-4)


def test_a_plan_is_proven_once_for_each_model_and_location(tiny_model, monkeypatch):
    proofs = []
    prove = opening.make_plan
    monkeypatch.setattr(opening, "make_plan", lambda *given: proofs.append(given[1].name) or prove(*given))
    loaded, rows = load(tiny_model("llama"))
    for place in ("3:down", "3:down", "1:mlp", "3:down"):
        with open_rows(loaded, locate(loaded.model, place), rows[:2], MEMORY) as opened:
            assert opened.plan is not None
    assert proofs == ["3:mlp.down_proj", "1:mlp"]
    again, rows = load(tiny_model("llama"))
    with open_rows(again, locate(again.model, "1:mlp"), rows, MEMORY):
        assert proofs == ["3:mlp.down_proj", "1:mlp", "1:mlp"]


def test_a_model_that_cannot_be_cut_runs_whole(tiny_model):
    """The first block's output is added before the last norm, so it must run each time."""
    loaded, rows = load(tiny_model("llama"))
    seen = []
    inner = loaded.model.model
    inner.layers[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
    inner.norm.register_forward_pre_hook(lambda module, inputs: (inputs[0] + seen[-1],))
    location = locate(loaded.model, "2:mlp")
    assert list(possible_plans(loaded, location, rows))
    with open_rows(loaded, location, rows, MEMORY) as opened:
        assert opened.engine == "whole"
        assert opened.predict([0]).logits_PV.isfinite().all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_plan_that_cuts_the_gradient_is_not_taken_though_its_logits_are_nearly_right(tiny_model, dtype):
    """Where the MLP adds next to nothing, silencing the gate is hardly seen in the logits, yet nothing would learn."""
    loaded, rows = load(tiny_model("llama"), dtype=dtype)
    loaded.model.get_parameter("model.layers.3.mlp.down_proj.weight").mul_(1e-4)
    plan = make_plan(loaded, locate(loaded.model, "3:up"), rows)
    assert plan is not None
    assert plan.entry is None
    plan = make_plan(loaded, locate(loaded.model, "3:down"), rows)
    assert plan is not None
    assert plan.layout == "packed"
    assert plan.entry == "model.layers.3.mlp.down_proj"
