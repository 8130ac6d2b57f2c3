"""Kept activations on disk: only what is new is computed; nothing broken, foreign or too large is used in silence."""

import logging
import os
import resource
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from factpatch.errors import InputError
from factpatch.files import GIB
from factpatch.frozen_trunk import store
from factpatch.frozen_trunk.opening import make_plan
from factpatch.frozen_trunk.store import kept_activations
from factpatch.frozen_trunk.trunk_batches import TRUNK_BATCH_ROWS
from factpatch.models.encoding import encode_edit
from factpatch.models.loading import load_model
from factpatch.models.locations import locate
from factpatch.settings.config import ModelSettings, TrunkSettings

CPU = torch.device("cpu")
PROMPTS = ("The capital of France is", "Who?", "東京 is in", "His currency is the", "Zürich is a city in")


class Opened:
    """A tiny model with a plan; counts the trunk's passes."""

    def __init__(self, folder, place="1:mlp", **settings):
        self.loaded = load_model(ModelSettings(path=str(folder), **settings))
        self.rows = [encode_edit(self.loaded.tokenizer, prompt, "Tokyo") for prompt in PROMPTS]
        self.plan = make_plan(self.loaded, locate(self.loaded.model, place), self.rows)
        self.passes = 0
        projection = self.loaded.model.get_submodule("model.layers.0.self_attn.q_proj")
        projection.register_forward_hook(self._count)

    def _count(self, module, inputs, output):
        assert len(output) == TRUNK_BATCH_ROWS
        self.passes += 1

    def keep(self, trunk, rows=None):
        """Activations of the rows, packed, and how many passes they took."""
        before = self.passes
        kept = kept_activations(self.loaded, self.plan, self.rows if rows is None else rows, trunk)
        return kept.packed(CPU), self.passes - before


@pytest.fixture
def opened(tiny_model):
    return Opened(tiny_model("llama"))


@pytest.fixture
def trunk(tmp_path):
    return TrunkSettings(folder=str(tmp_path / "trunk"))


def shards(trunk):
    return sorted(Path(trunk.folder).glob("*/*.safetensors"))


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[site]) for site, value in one.items())


def test_only_new_rows_are_computed(opened, trunk):
    alone, passes = opened.keep(replace(trunk, folder=None))
    assert passes > 0
    assert opened.keep(trunk, opened.rows[:2])[1] > 0
    first = shards(trunk)
    kept, passes = opened.keep(trunk, opened.rows)
    lengths = {-(-(len(row.ids) - 1) // 8) for row in opened.rows[2:]}
    assert passes == len(lengths)  # a batch for each width
    assert_same(kept, alone)
    assert len(shards(trunk)) == len(first) + 1
    again, passes = opened.keep(trunk, [*opened.rows[::-1], opened.rows[0]])
    assert passes == 0
    assert_same(again, opened.keep(replace(trunk, folder=None), [*opened.rows[::-1], opened.rows[0]])[0])


def test_a_shard_holds_a_bounded_number_of_rows(opened, trunk, monkeypatch):
    monkeypatch.setattr(store, "SHARD_ROWS", 2)
    seen = []
    kept = kept_activations(opened.loaded, opened.plan, opened.rows, trunk, lambda *at: seen.append(at))
    assert len(shards(trunk)) == len(kept.shards) == 3
    assert seen[-1] == (5, 5)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert_same(kept.packed(CPU), opened.keep(replace(trunk, folder=None))[0])


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    path.write_bytes(b"")


def flip(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def mislabel(path):
    """The same tensors under other rows' names."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    lengths = about["lengths"].strip("[]").split(", ")
    save_file(load_file(path), path, about | {"lengths": f"[{', '.join(lengths[::-1])}]"})


@pytest.mark.parametrize("harm", [truncate, empty, flip, mislabel])
def test_a_broken_shard_is_removed_with_one_warning_and_computed_anew(opened, trunk, caplog, harm):
    wanted, passes = opened.keep(trunk)
    (path,) = shards(trunk)
    harm(path)
    with caplog.at_level(logging.WARNING):
        found, again = opened.keep(trunk)
    assert again == passes
    assert_same(found, wanted)
    (record,) = caplog.records
    assert str(path) in record.getMessage()
    assert "broken" in record.getMessage()
    caplog.clear()
    assert opened.keep(trunk)[1] == 0
    assert not caplog.records


def test_broken_shards_of_other_rows_do_not_matter(opened, trunk, caplog):
    opened.keep(trunk, opened.rows[:2])
    flip(shards(trunk)[0])
    opened.keep(trunk, opened.rows[2:])
    assert not caplog.records


def test_another_model_dtype_or_place_shares_nothing(tiny_model, opened, trunk):
    opened.keep(trunk)
    folders = 1
    others = [
        Opened(tiny_model("qwen2")),
        Opened(tiny_model("llama"), dtype="bfloat16"),
        Opened(tiny_model("llama"), "2:mlp"),
        Opened(tiny_model("llama"), "1:attention"),
    ]
    changed = Opened(tiny_model("llama"))
    changed.loaded.model.get_parameter("model.layers.0.mlp.up_proj.weight")[0, 0] += 1e-3
    for other in (*others, changed):
        assert other.keep(trunk)[1] > 0
        folders += 1
        assert len(list(Path(trunk.folder).iterdir())) == folders


def test_a_patched_model_shares_its_base_models_trunk(opened, trunk):
    wanted, _ = opened.keep(trunk)
    for name in opened.plan.location.parameters:
        opened.loaded.model.get_parameter(name).mul_(1.5)
    found, passes = opened.keep(trunk)
    assert passes == 0
    assert_same(found, wanted)


def test_what_was_not_used_for_longest_goes_first(tiny_model, trunk):
    model = tiny_model("llama")
    old, recent, now = (Opened(model, f"{layer}:mlp") for layer in (1, 2, 3))
    for age, other in ((300, old), (200, recent)):
        other.keep(trunk)
        newest = max(Path(trunk.folder).iterdir(), key=lambda folder: folder.stat().st_mtime)
        os.utime(newest, (newest.stat().st_atime - age, newest.stat().st_mtime - age))
    room = sum(path.stat().st_size for path in shards(trunk)) + 1
    now.keep(replace(trunk, disk_gb=room / GIB))
    assert recent.keep(trunk)[1] == 0
    assert old.keep(trunk)[1] > 0
    found, passes = now.keep(replace(trunk, disk_gb=0.0))  # what is in use stays, however small the limit
    assert passes == 0
    assert len(list(Path(trunk.folder).iterdir())) == 1
    assert_same(found, now.keep(replace(trunk, folder=None))[0])


def test_memory_alone_has_its_limit(opened):
    need = opened.keep(TrunkSettings(folder=None))[0]
    passes, exact = opened.passes, sum(tensor.nbytes for tensor in need.values()) / GIB
    with pytest.raises(InputError, match=r"more than trunk\.memory_gb \([\de.-]+\); name a trunk\.folder") as caught:
        opened.keep(TrunkSettings(folder=None, memory_gb=exact * 0.999))
    assert "\n" not in str(caught.value)
    assert opened.passes == passes  # it is known before anything is computed
    assert opened.keep(TrunkSettings(folder=None, memory_gb=exact * 1.001))[1] > 0


def test_beyond_the_memory_limit_shards_stay_on_disk(opened, trunk):
    wanted, _ = opened.keep(trunk)
    assert_same(opened.keep(replace(trunk, memory_gb=0.0))[0], wanted)
    path = str(shards(trunk)[0])
    mapped = kept_activations(opened.loaded, opened.plan, opened.rows, replace(trunk, memory_gb=0.0))
    assert path in Path("/proc/self/maps").read_text()
    del mapped
    read = kept_activations(opened.loaded, opened.plan, opened.rows, trunk)
    assert path not in Path("/proc/self/maps").read_text()
    assert len(read) == len(opened.rows)


@contextmanager
def largest_file(size):
    """As on a full disk, no file grows beyond `size` bytes (Python ignores the signal, so writing fails)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_clear_line_and_leaves_nothing(opened, trunk):
    with largest_file(4096), pytest.raises(InputError) as caught:
        opened.keep(trunk)
    message = str(caught.value)
    assert "\n" not in message
    assert trunk.folder in message
    assert "make room or name another trunk.folder" in message
    assert not [path for path in Path(trunk.folder).rglob("*") if path.is_file()]
    assert opened.keep(trunk)[1] > 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named(opened, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(InputError, match=r"trunk\.folder '.*locked' cannot be written"):
        opened.keep(TrunkSettings(folder=str(tmp_path / "locked")))
