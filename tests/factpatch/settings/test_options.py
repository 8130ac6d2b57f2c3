"""Settings of a method's own, in `training.options`."""

import subprocess
import sys

import pytest

from factpatch.errors import InputError
from factpatch.methods.base import settings_of
from factpatch.methods.lookup import find_method
from factpatch.settings.config import load_settings, override, to_dict
from factpatch.settings.training import decisive


def build(**training):
    return load_settings(None, {f"training.{name}": value for name, value in training.items()})


def test_they_reach_the_method_s_settings_beside_those_that_training_has():
    settings = build(method="memit", seed=3, options={"chunk": 100, "v_lr": "5e-1"})
    own = settings_of(find_method("memit"), settings.training)
    assert (own.chunk, own.v_lr, own.seed, own.kl_factor) == (100, 0.5, 3, 0.0625)
    assert decisive(settings.training)["options"] == to_dict(settings)["training"]["options"]


def test_one_of_them_can_be_set_by_its_dotted_name():
    settings = override(build(method="alphaedit", options={"l2": 1}), {"training.options.chunk": 50})
    assert settings.training.options == {"l2": 1, "chunk": 50}


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("memit", {"chunks": 3}, "unknown key 'training.options.chunks'; did you mean 'training.options.chunk'?"),
        ("ultraedit", {"depth": 3}, "unknown key 'training.options.depth'; known here: lr, chunk"),
        ("ultraedit", {"seed": 3}, "unknown key 'training.options.seed'"),
        ("memit", {"chunk": 0}, "training.options.chunk is 0; it must be at least 1"),
        ("alphaedit", {"chunk": "few"}, "training.options.chunk is 'few'; it must be a whole number"),
        ("breadth-first", {"chunk": 1}, "training method 'breadth-first' has no options"),
        ("depth-first", {"chunk": 1}, "training method 'depth-first' has no options"),
        ("memit", 3, "training.options is 3; it must be a mapping"),
    ],
)
def test_what_a_method_has_not_is_refused_in_one_line(method, options, words):
    with pytest.raises(InputError) as caught:
        build(method=method, options=options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_paper_s_recipe_has_none():
    with pytest.raises(InputError, match="training method 'breadth-first' has no options"):
        build(recipe="paper", options={"chunk": 1})


def test_they_are_checked_without_torch():
    code = (
        "import sys; from factpatch.settings.config import load_settings\n"
        "for name in ('ultraedit', 'memit', 'alphaedit'):\n"
        "    load_settings(None, {'training.method': name, 'training.options.chunk': 10})\n"
        "assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
