"""A streamed model keeps the very activations that the model in memory keeps, and reads each block once for them."""

import errno
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from factpatch.errors import InputError
from factpatch.frozen_trunk import open_rows, store
from factpatch.frozen_trunk.capture import capture
from factpatch.frozen_trunk.hidden_states import HiddenWriter
from factpatch.frozen_trunk.opening import make_plan
from factpatch.frozen_trunk.store import kept_activations
from factpatch.models.encoding import encode_edit
from factpatch.models.loading import load_model
from factpatch.models.locations import locate
from factpatch.models.placement import stream_of
from factpatch.settings.config import ModelSettings, TrunkSettings

PROMPTS = ("The capital of France is", "Who?", "東京 is in", "His currency is the peso, and Zürich is a city in")
PLACES = ("3:down", "1:attention", "1-2:down")
CPU = torch.device("cpu")


class Pair:
    """A tiny model in memory and the same one streamed."""

    def __init__(self, folder, place, **settings):
        self.whole = load_model(ModelSettings(path=str(folder), **settings))
        self.loaded = load_model(ModelSettings(path=str(folder), placement="stream", **settings))
        self.location = locate(self.loaded.model, place)
        self.rows = [
            encode_edit(self.whole.tokenizer, f"{prompt} {number}", "Tokyo")
            for prompt in PROMPTS
            for number in range(3)
        ]
        self.plan = make_plan(self.loaded, self.location, self.rows)
        assert self.plan == make_plan(self.whole, self.location, self.rows)
        self.stream = stream_of(self.loaded.model)

    def blocks_read(self, work):
        """What `work` gives, and how many bytes of which blocks it read."""
        before = self.stream.bytes_read
        found = work()
        size = sum(self.loaded.model.get_parameter(name).nbytes for name in self.stream.blocks[0])
        return found, (self.stream.bytes_read - before) / size


def same(found, wanted):
    found, wanted = found.packed(CPU), wanted.packed(CPU)
    return found.keys() == wanted.keys() and all(torch.equal(found[site], wanted[site]) for site in wanted)


@pytest.fixture
def trunk(tmp_path):
    return TrunkSettings(folder=str(tmp_path / "trunk"))


@pytest.mark.parametrize("place", PLACES)
def test_activations_are_those_of_the_model_in_memory(tiny_model, kind, place):
    pair = Pair(tiny_model(kind), place)
    found, blocks = pair.blocks_read(lambda: capture(pair.loaded, [pair.plan], pair.rows)[0])
    assert same(found, capture(pair.whole, [pair.plan], pair.rows)[0])
    assert blocks == pytest.approx(pair.plan.layer + (pair.plan.mixer is not None))


def test_several_places_are_served_by_one_pass(tiny_model):
    pair = Pair(tiny_model("llama"), "3:down")
    plans = [pair.plan, make_plan(pair.loaded, locate(pair.loaded.model, "1:mlp"), pair.rows)]
    found, blocks = pair.blocks_read(lambda: capture(pair.loaded, plans, pair.rows))
    assert blocks == pytest.approx(4)
    for own, wanted in zip(found, capture(pair.whole, plans, pair.rows), strict=True):
        assert same(own, wanted)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_store_is_the_same_wherever_hidden_states_lie(tiny_model, trunk, dtype, monkeypatch):
    monkeypatch.setattr(store, "SHARD_ROWS", 4)
    pair = Pair(tiny_model("llama"), "3:down", dtype=dtype)
    wanted = kept_activations(pair.whole, pair.plan, pair.rows, replace(trunk, folder=None))
    on_disk = replace(trunk, memory_gb=0.0)
    found, blocks = pair.blocks_read(lambda: kept_activations(pair.loaded, pair.plan, pair.rows, on_disk))
    assert same(found, wanted)
    assert blocks == pytest.approx(4)
    assert not list(Path(trunk.folder).rglob("*.hidden"))
    assert len(list(Path(trunk.folder).rglob("*.safetensors"))) > 1
    again, blocks = pair.blocks_read(lambda: kept_activations(pair.whole, pair.plan, pair.rows, trunk))
    assert same(again, wanted)  # the model in memory finds what the streamed one left
    assert blocks == 0


def test_a_killed_pass_goes_on_with_the_block_it_was_at(tiny_model, trunk, monkeypatch):
    pair = Pair(tiny_model("llama"), "3:down")
    on_disk, taken = replace(trunk, memory_gb=0.0), []
    take = HiddenWriter.take

    def killed(self, value):
        taken.append(value)
        if len(taken) > 2 * len(batches):
            raise KeyboardInterrupt
        take(self, value)

    batches = {-(-(len(row.ids) - 1) // 8) for row in pair.rows}
    monkeypatch.setattr(HiddenWriter, "take", killed)
    with pytest.raises(KeyboardInterrupt):
        kept_activations(pair.loaded, pair.plan, pair.rows, on_disk)
    monkeypatch.setattr(HiddenWriter, "take", take)
    found, blocks = pair.blocks_read(lambda: kept_activations(pair.loaded, pair.plan, pair.rows, on_disk))
    assert blocks == pytest.approx(2)  # of four: the first two had passed
    assert same(found, kept_activations(pair.whole, pair.plan, pair.rows, replace(trunk, folder=None)))


def test_a_full_disk_is_told_in_one_line(tiny_model, trunk, monkeypatch):
    pair = Pair(tiny_model("llama"), "2:mlp")

    def full(self, value):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(HiddenWriter, "take", full)
    with pytest.raises(InputError, match=r"cannot take the hidden states of block 1 .*run again: what is done is kept"):
        kept_activations(pair.loaded, pair.plan, pair.rows, replace(trunk, memory_gb=0.0))


def test_hidden_states_without_a_folder_stay_below_the_limit(tiny_model):
    pair = Pair(tiny_model("llama"), "2:mlp")
    with pytest.raises(InputError, match=r"more than trunk\.memory_gb .*name a trunk\.folder"):
        kept_activations(pair.loaded, pair.plan, pair.rows, TrunkSettings(folder=None, memory_gb=5e-5))


def test_training_of_a_model_that_cannot_be_cut_is_refused(tiny_model, trunk, monkeypatch):
    pair = Pair(tiny_model("llama"), "2:mlp")
    with (
        pytest.raises(InputError, match=r"trunk\.keep is false"),
        open_rows(pair.loaded, pair.location, pair.rows, replace(trunk, keep=False)),
    ):
        pass
    monkeypatch.setattr("factpatch.frozen_trunk.opening.proven_plan", lambda *given: None)
    with (
        pytest.raises(InputError, match="cannot be cut into blocks below 2:mlp"),
        open_rows(pair.loaded, pair.location, pair.rows, trunk),
    ):
        pass
