"""A project of one's own: the repository is one, and what `init` writes is read by everything that is to read it."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from factpatch.edits.folder import read_ledger
from factpatch.errors import InputError
from factpatch.project import configured_dtype, render_template, write_project
from factpatch.settings.config import Settings, load_settings, to_dict
from flows.__main__ import main

ROOT = Path(__file__).parents[3]
OURS = {
    "dvc.yaml": "dvc.yaml",
    "dvcignore": ".dvcignore",
    "dvcconfig": ".dvc/config",
    "dvcgitignore": ".dvc/.gitignore",
    "prefect.yaml": "prefect.yaml",
    "edits.yml": ".github/workflows/edits.yml",
    "gitignore": ".gitignore",
}


@pytest.mark.parametrize("template", OURS)
def test_the_repository_is_such_a_project(template):
    written = render_template(template, checkout=True, local=True, install="make install")
    assert written == (ROOT / OURS[template]).read_text(encoding="utf-8")


def test_no_default_names_a_file():
    """But for the folder that a project keeps its own edits in."""
    named = {
        f"{section}.{key}": value
        for section, keys in to_dict(Settings()).items()
        for key, value in keys.items()
        if isinstance(value, str) and "/" in value and not value.startswith(".cache/")
    }
    assert named == {"edits.path": "data/edits"}


def test_a_new_project_is_read_by_everything(tmp_path, monkeypatch, tiny_model, capsys):
    monkeypatch.chdir(tmp_path)
    model = shutil.copytree(tiny_model("llama"), tmp_path / "model")
    told = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**told, "dtype": "bfloat16"}))

    assert main(["init", "own", "--model", "model"]) == 0
    assert "cd own" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path / "own")
    settings = load_settings()
    assert (settings.model.path, settings.model.dtype) == (str(model), "bfloat16")
    assert to_dict(settings)["gates"] == to_dict(Settings())["gates"]
    assert [entry.state for entry in read_ledger(settings.edits.path)] == ["active"]
    stages = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]
    assert list(stages) == ["validate", "probes", "localize", "edit", "evaluate", "regress"]
    sections = {name for stage in stages.values() for name in stage["params"]} - {
        "gates.canaries",
        "training.seed",
        "training.preservation.prompts",
    }
    assert sections <= set(yaml.safe_load(Path("params.yaml").read_text()))
    depended = {dep for stage in stages.values() for dep in stage["deps"]}
    assert not {dep for dep in depended if not dep.startswith(("${edits.path}", "${model.path}", "${output}/"))}
    for name in ("prefect.yaml", ".github/workflows/edits.yml"):
        assert yaml.safe_load(Path(name).read_text())
    assert "make" not in Path(".github/workflows/edits.yml").read_text()


def test_a_hub_model_is_no_file_to_depend_on():
    assert "model.path" not in render_template("dvc.yaml", checkout=False, local=False)


def test_every_key_of_a_new_project_has_a_comment():
    values = {"model": "m", "dtype": "float32", "name": "n"}
    lines = render_template("params.yaml", **values).splitlines()
    assert not [line for line in lines if line.startswith("  ") and "#" not in line]


def test_a_folder_that_holds_something_is_left_as_it_is(tmp_path, tiny_model):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not an empty folder"):
        write_project(tmp_path, str(tiny_model("llama")))
    with pytest.raises(InputError, match="does not exist"):
        write_project(tmp_path / "new", "./models/absent")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_fresh_repository_and_the_folder_where_one_stands_are_empty(tmp_path, tiny_model, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    for path in write_project(Path("."), str(tiny_model("llama"))):
        assert path.is_file()
    assert not Path(".new").exists()


def test_a_model_without_a_configuration_is_told(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="no configuration that can be read"):
        configured_dtype(str(tmp_path))
