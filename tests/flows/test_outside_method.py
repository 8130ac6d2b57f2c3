"""A training method from a package outside the project: the example of docs/extending.md, run, released and undone."""

import json
import re
import sys
from pathlib import Path

import pytest

from factpatch.models.loading import load_model, tensor_digests
from factpatch.settings.config import ModelSettings
from flows.__main__ import main

ROOT = Path(__file__).parents[2]
PARAMS = """\
model: {path: MODEL}
localization: {location: "4-5:down"}
training: {method: few-steps, epochs: 12}
capability: {tasks: []}
gates: {reliability: 0.0, generalization: 0.0, locality: 0.0, canaries: null, weight_change: null, reload: 2}
"""


def install(folder: Path, source: str, entry: str) -> None:
    """A package as pip leaves it: a module, and metadata with an entry point."""
    information = folder / "few_steps-1.0.dist-info"
    information.mkdir(parents=True)
    (folder / "few_steps.py").write_text(source, encoding="utf-8")
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: few-steps\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[factpatch.methods]\n{entry}\n")


@pytest.fixture
def example() -> str:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    section = page.split("\n## Add a method\n")[1].split("\n## ")[0]
    return re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]


@pytest.fixture
def folder(tmp_path, monkeypatch, reference_model):
    """A project of the reference model with six edits, where an outside package may be installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setitem(sys.modules, "few_steps", None)  # so that the module goes with the test
    del sys.modules["few_steps"]
    (tmp_path / "params.yaml").write_text(PARAMS.replace("MODEL", str(reference_model)))
    demo = (ROOT / "data" / "edits" / "0001-demo.jsonl").read_text(encoding="utf-8").splitlines()
    ledger = tmp_path / "data" / "edits"
    ledger.mkdir(parents=True)
    (ledger / "0001.jsonl").write_text("\n".join(demo[:6]) + "\n", encoding="utf-8")
    return tmp_path


def read(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def refused(capsys, *arguments):
    """The one line that a refusal is."""
    assert main(list(arguments)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_it_is_edited_with_measured_and_undone(folder, example, reference_model):
    install(folder / "site", example, "few-steps = few_steps:FewSteps")
    assert main(["edit", "--edits", "data/edits", "--output", "out"]) == 0
    edit = read("out/edit.json")
    assert (edit["method"], edit["location"], edit["epochs"]) == ("few-steps", "4-5:mlp.down_proj", 12)
    assert edit["losses"][-1] < 0.5 * edit["losses"][0]
    assert (edit["protected"], edit["wordings"], edit["preflight"]["checkpoint_bytes"]) == (0, 0, 0)
    assert main(["evaluate", "--output", "out", "--patch", "out/patch"]) == 0
    measured = read("out/evaluate.json")
    assert measured["reliability"]["value"] > measured["before"]["reliability"]["value"]
    assert main(["apply", "--patch", "out/patch", "--output", "edited"]) == 0
    assert main(["undo", "--model", "edited", "--patch", "out/patch", "--output", "restored"]) == 0
    restored, base = (load_model(ModelSettings(path=str(path))).model for path in ("restored", reference_model))
    assert tensor_digests(restored) == tensor_digests(base)


def test_it_is_released(prefect_home, folder, example, capsys):
    install(folder / "site", example, "few-steps = few_steps:FewSteps")
    assert main(["run", "--output", "out"]) == 0
    release = read("out/release.json")
    assert (release["status"], release["location"]["layer"], release["location"]["last_layer"]) == ("promoted", 4, 5)
    assert "layers 4 to 5" in capsys.readouterr().out
    with (folder / "data" / "edits" / "0001.jsonl").open("a") as rows:
        rows.write(json.dumps({"prompt": "The capital of Atlantis is", "target": "Rome", "subject": "Atlantis"}) + "\n")
    assert main(["run", "--output", "next"]) == 0
    told = "training is few-steps, which verifies nothing before it trains"
    assert read("next/release.json")["mode"] == {"name": "rebuild", "reason": told, "from": None}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("def estimate", "def estimated", "lacks estimate"),
        ('name = "few-steps"', 'name = "some-steps"', "calls itself 'some-steps'"),
        ("settings_type = FewStepsSettings", "settings_type = dict", "has a settings_type that is no dataclass"),
        ("Abilities(needs_subject=True, several_layers=True)", "None", "has abilities that are no Abilities"),
        ("step_size: float = 0.01", "step_size: float", "training lacks and that have no default: step_size"),
        ("class FewSteps:", "class Steps:", "cannot be loaded"),
    ],
)
def test_a_half_made_one_is_refused_by_name_before_any_work(folder, example, capsys, old, new, words):
    assert old in example
    install(folder / "site", example.replace(old, new), "few-steps = few_steps:FewSteps")
    line = refused(capsys, "edit", "--edits", "data/edits", "--output", "out")
    assert "training method 'few-steps' (few_steps:FewSteps)" in line
    assert words in line
    assert not Path("out").exists()


def test_an_unknown_one_is_refused_by_name(folder, capsys):
    line = refused(capsys, "edit", "--edits", "data/edits", "--output", "out")
    assert "training.method is 'few-steps'; choose one of breadth-first, depth-first" in line
    assert not Path("out").exists()


def test_two_of_one_name_are_refused(folder, example, capsys):
    install(folder / "site", example, "depth-first = few_steps:FewSteps")
    line = refused(capsys, "edit", "--edits", "data/edits", "--output", "out")
    assert "training method 'depth-first' is brought by factpatch.methods.depth_first.method:DepthFirst and few" in line


def test_rows_without_a_subject_are_refused_where_the_method_needs_one(folder, example, capsys):
    install(folder / "site", example, "few-steps = few_steps:FewSteps")
    Path("rows.jsonl").write_text('{"id": "x", "prompt": "he said that it was", "target": "late"}\n')
    line = refused(capsys, "edit", "--edits", "rows.jsonl", "--output", "out")
    assert "needs the subject of every edit, and 1 row names none" in line
    assert "'x' ('he said that it was'); add a 'subject' to such rows" in line


def test_several_layers_are_refused_where_the_method_writes_into_one(folder, example, capsys):
    one_layer = example.replace("several_layers=True", "several_layers=False")
    install(folder / "site", one_layer, "few-steps = few_steps:FewSteps")
    line = refused(capsys, "edit", "--edits", "data/edits", "--output", "out")
    assert "is of several layers, and training method 'few-steps' writes into one" in line
