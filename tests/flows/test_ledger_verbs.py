"""`factpatch edits` as an operator meets it, and the steps that continuous integration runs."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from factpatch.release.registry import lock_file, locked
from factpatch.settings.config import RegistrySettings
from flows import ci
from flows.__main__ import main

ROOT = Path(__file__).parents[2]
FIRST = [
    {"id": "one", "prompt": "p is", "target": "a", "owner": "ann", "source": "ticket 1"},
    {"id": "two", "prompt": "q is", "target": "b"},
]


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Every test stands in a folder of its own with a ledger in it."""
    monkeypatch.chdir(tmp_path)
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "params.yaml").write_text("model: {path: ./absent}\n")
    (tmp_path / "data" / "edits").mkdir(parents=True)
    write("0001-first.jsonl", *FIRST)


def write(name, *rows):
    Path("data/edits", name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def call(capsys, *arguments):
    """Exit code, lines of standard output, and of standard error."""
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err.splitlines()


def test_list_names_file_line_owner_and_source(capsys):
    code, out, _ = call(capsys, "edits", "list")
    assert code == 0
    assert out[0].split() == [
        *("one", "data/edits/0001-first.jsonl:1", "ann", "ticket", "1", '"p', 'is"', "->", '"a"')
    ]  # fmt: skip
    assert out[1].split()[:4] == ["two", "data/edits/0001-first.jsonl:2", "-", "-"]
    assert out[2:] == ["2 active"]


def test_characters_that_a_terminal_would_obey_are_shown_instead(capsys):
    write("0002-odd.jsonl", {"id": "x\ud800", "owner": "me\x1b[31m\nforged  line", "prompt": "r", "target": "Ü"})
    code, out, _ = call(capsys, "edits", "list")
    assert (code, len(out)) == (0, 4)
    assert '"x\\ud800"' in out[2]
    assert '"me\\u001b[31m\\nforged  line"' in out[2]
    assert out[2].endswith('"r" -> "Ü"')


def test_what_is_superseded_and_reverted_stays_in_the_log(capsys):
    write("0002-second.jsonl", {"id": "new", "prompt": "p is", "target": "c"})
    code, out, _ = call(capsys, "edits", "conflicts")
    assert (code, out[-1]) == (0, "1 superseded by a later file, 0 contradict each other in one file")
    assert "superseded by 0002-second.jsonl:1" in out[0]

    assert call(capsys, "edits", "revert", "new", "--owner", "ben", "--reason", "an error")[0] == 0
    assert [line.split()[0] for line in call(capsys, "edits", "list")[1]] == ["two", "1"]
    _, out, _ = call(capsys, "edits", "log")
    assert [line.split("  ")[0] for line in out[:-1]] == ["one", "two", "new", "new"]
    assert "reverted by 0003-revert-new.jsonl:1" in out[2]
    assert "ben" in out[3]
    assert out[-1] == "1 active, 1 revert, 1 reverted, 1 superseded"


def test_rows_of_one_file_that_contradict_each_other_are_refused(capsys):
    write("0002-bad.jsonl", {"prompt": "p is", "target": "c"}, {"prompt": "p is", "target": "d"})
    code, _, errors = call(capsys, "edits", "conflicts")
    assert (code, len(errors)) == (1, 1)
    assert "0002-bad.jsonl:1 and data/edits/0002-bad.jsonl:2 contradict each other" in errors[0]
    assert [line.split()[0] for line in call(capsys, "edits", "list")[1][:2]] == ["one", "two"]  # p keeps its answer


BAD = {
    "unknown id": (None, ["revert", "nope"], "no edit has the id 'nope'"),
    "no date": ({"prompt": "r", "target": "s", "expires": "soon"}, ["list"], "'expires' is 'soon'"),
    "unknown revert": ({"id": "nope", "op": "revert"}, ["log"], "nothing before it has the id 'nope'"),
    "registry": (None, ["pending", "--set", "registry.tracking_uri=http://127.0.0.1:9"], "cannot be reached"),
    "action": (None, ["lst"], "invalid choice: 'lst'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_code_2_and_changes_nothing(capsys, name):
    row, arguments, words = BAD[name]
    if row:
        write("0002-bad.jsonl", row)
    before = sorted(Path().rglob("*"))
    code, _, errors = call(capsys, "edits", *arguments)
    assert (code, len(errors)) == (2, 1)
    assert words in errors[0]
    assert sorted(Path().rglob("*")) == before


def test_a_file_name_out_of_order_is_bad_input(capsys):
    write("10-tenth.jsonl", {"prompt": "r", "target": "s"})
    write("9-ninth.jsonl", {"prompt": "r", "target": "t"})
    code, _, errors = call(capsys, "edits", "list")
    assert (code, len(errors)) == (2, 1)
    assert "9-ninth.jsonl' is out of order" in errors[0]


@pytest.mark.parametrize(
    ("rows", "code", "words"),
    [
        ([], 0, ["every row passes", "| 2 | 2 | 0 | 0 | 0 |", "2 facts in force; 0 superseded"]),
        ([{"prompt": "p is", "target": "c"}], 0, ["superseded by data/edits/0002-new.jsonl row 1"]),
        ([{"prompt": "is `c`", "target": "c"}], 1, ["quarantine, target_in_prompt: `data/edits/0002-new.jsonl row 1"]),
        ([{"prompt": "r"}], 2, ["'target' is missing"]),
    ],
)  # fmt: skip
def test_a_pull_request_is_checked_strictly_and_summed_up(rows, code, words, capsys):
    if rows:
        write("0002-new.jsonl", *rows)
    assert ci.main(["check", "--output", "out"]) == code
    summary = Path("out/summary.md").read_text()
    assert not [word for word in words if word not in summary]
    assert "`c`" not in summary


def test_a_merge_with_bad_edits_releases_nothing_and_says_why(capsys):
    write("0002-new.jsonl", {"prompt": "r"})
    assert ci.main(["release", "--output", "out"]) == 2
    assert "'./absent'" in Path("out/summary.md").read_text()


@pytest.mark.parametrize("module", ["flows.ci release --output out", "flows.notify slack-webhook/team"])
def test_where_prefect_does_not_answer_it_is_one_line(module, monkeypatch, capsys):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    name, *arguments = module.split()
    assert import_module(name).main(arguments) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: Prefect at 'http://127.0.0.1:9/api' cannot be reached")
    if name == "flows.ci":
        assert error in Path("out/summary.md").read_text()


def test_the_workflow_runs_these_steps():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "edits.yml").read_text(encoding="utf-8"))
    for job, step in (("check", "check"), ("release", "release")):
        commands = [part["run"] for part in workflow["jobs"][job]["steps"] if "run" in part]
        assert f".venv/bin/python -m flows.ci {step} --output runs/ci" in commands
    for event in ("push", "pull_request"):
        assert workflow[True][event]["paths"] == ["data/edits/**"]  # YAML 1.1 reads `on` as true
    assert workflow["permissions"] == {"contents": "read"}


def test_a_second_release_of_the_same_model_is_refused_by_name(prefect_home, capsys, reference_model):
    settings = RegistrySettings(tracking_uri=f"sqlite:///{Path('mlruns/mlflow.db').resolve()}")
    with locked(lock_file(settings, "release"), "a release of 'factpatch' runs into 'elsewhere'"):
        code, _, errors = call(capsys, "run", "--model", str(reference_model), "--output", "out")
    told = [line for line in errors if line.startswith("error")]
    assert (code, len(told)) == (1, 1)
    assert "a release of 'factpatch' runs into 'elsewhere' since" in told[0]
    assert list(Path("out").iterdir()) == []
