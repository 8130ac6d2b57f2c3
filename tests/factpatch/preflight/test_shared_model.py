"""The base model in memory: loaded once for the steps of a flow, anew where it is another one, and then let go."""

import gc
import shutil
import weakref
from dataclasses import replace

import pytest
import torch

from factpatch.errors import RefusedError
from factpatch.preflight import shared_model as owner
from factpatch.preflight.shared_model import base_model, make_room, share_base_model, within_memory
from factpatch.settings.config import ModelSettings


@pytest.fixture
def model(tiny_model, tmp_path):
    return ModelSettings(path=str(shutil.copytree(tiny_model("llama"), tmp_path / "model")))


def load(settings):
    with base_model(settings) as loaded:
        return weakref.ref(loaded.model)


def alive(found) -> bool:
    gc.collect()
    return found() is not None


def test_steps_of_a_flow_get_one_model_and_single_ones_their_own(model):
    with share_base_model():
        first = load(model)
        assert load(model)() is first() is not None
        with share_base_model():
            assert load(model)() is first()
        assert alive(first)
    assert not alive(first)
    assert not alive(load(model))


def test_another_model_takes_its_place(model, tmp_path):
    with share_base_model():
        first = load(model)
        other = load(replace(model, dtype="bfloat16"))
        assert other().dtype == torch.bfloat16
        assert not alive(first)
        (tmp_path / "model" / "generation_config.json").write_text("{}")  # a file of the folder is not what it was
        assert load(replace(model, dtype="bfloat16"))() is not None
        assert not alive(other)


def test_a_step_that_failed_leaves_none_to_the_next(model):
    with share_base_model():
        first = load(model)
        with pytest.raises(ZeroDivisionError), base_model(model):
            raise ZeroDivisionError
        assert not alive(first)


def test_memory_that_the_model_takes_is_given_before_a_check_refuses(model):
    def check():
        if alive(first):
            raise RefusedError("no room")
        return "room"

    with share_base_model():
        first = load(model)
        assert within_memory(check) == "room"

        def never():
            raise RefusedError("no room")

        with pytest.raises(RefusedError):
            within_memory(never)


def test_it_goes_where_no_second_one_fits_beside_it(model, tmp_path, monkeypatch):
    with share_base_model():
        first = load(model)
        make_room(tmp_path)
        assert alive(first)
        free = owner.available("cpu", tmp_path, None)
        monkeypatch.setattr(owner, "available", lambda *_: replace(free, memory=1))
        make_room(tmp_path)
        assert not alive(first)
