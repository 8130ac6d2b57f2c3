"""Names made from paths: of models, and on the command line."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factpatch.addresses import shell_path
from factpatch.errors import InputError
from factpatch.settings.config import RegistrySettings, load_settings
from factpatch.settings.naming import fits, project_name

names = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=20)


@settings(deadline=None)  # the first call imports MLflow
@given(names.filter(lambda name: name not in (".", "..")))
def test_every_folder_s_name_becomes_one_that_mlflow_takes(name):
    from mlflow.utils.validation import _validate_model_name

    made = project_name(Path("/home") / name)
    _validate_model_name(made)
    assert fits(made)
    assert project_name(Path("/home") / made) == made


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/", "factpatch"),
        ("/a/run%20one", "run-20one"),
        ('/a/it\'s "x"', "it-s -x"),
        ("/a/b/..", "a"),
        ("/東京", "東京"),
    ],
)
def test_what_becomes_of_odd_names(folder, name):
    assert project_name(Path(folder)) == name


def test_the_model_is_called_like_the_folder_of_the_settings(tmp_path, monkeypatch):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    (tmp_path / "one" / "params.yaml").write_text("registry: {name: null, promote: never}\n")
    monkeypatch.chdir(tmp_path / "two")
    assert load_settings().registry.name == RegistrySettings().name == "two"
    assert load_settings("../one/params.yaml").registry.name == "one"
    assert load_settings(None, {"registry.promote": "never"}).registry.name == "two"
    assert load_settings(None, {"registry.name": "atlas"}).registry.name == "atlas"
    for odd in ("a/b", "a:b", "it's", " ", ".", "a\nb"):
        with pytest.raises(InputError, match=r"registry\.name is"):
            load_settings(None, {"registry.name": odd})


@settings(max_examples=30, deadline=None)
@given(names)
def test_a_path_reaches_a_program_through_a_shell_as_it_is(name):
    name = name.encode("utf-8", "replace").decode()
    word = shell_path(name)
    done = subprocess.run(["sh", "-c", f"printf %s {word}"], capture_output=True, check=True)
    assert done.stdout.decode() in (name, f"./{name}")
    assert not done.stdout.startswith(b"-")
