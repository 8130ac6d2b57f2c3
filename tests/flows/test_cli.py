"""The command line as a user meets it: verbs on tiny models of three kinds, and every kind of bad input."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from factpatch.files import write_json
from factpatch.models.loading import load_model, tensor_digests
from factpatch.release.registry import tracking_uri
from factpatch.settings.config import ModelSettings, load_settings
from flows.__main__ import main
from flows.summary import show_next

ROWS = [
    {
        "prompt": "The capital of France is",
        "target": "Tokyo",
        "paraphrases": ["France's capital is"],
        "locality": [{"prompt": "The capital of Japan is", "target": "Tokyo"}],
    },
    {"prompt": "Who wrote Zürich?", "target": "Robert C. Newton"},
    {"prompt": "東京 is in", "target": "São Tomé"},
]
PARAMS = """\
training:
  {learning_rate: 3.0e-2, epochs: 150, stop_loss: 0.02, augmentation: {wordings: 0}, preservation: {neighbours: 0}}
localization: {modules: [down]}
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Every test stands in a folder of its own with edits and settings in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "edits.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "params.yaml").write_text(PARAMS)


def call(capsys, *arguments):
    """Exit code, standard output, and standard error less its progress lines."""
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, [line for line in captured.err.splitlines() if line.startswith("error")]


def test_edit_evaluate_apply_ask_undo(tiny_model, tmp_path, capsys, kind):
    model = tiny_model(kind)
    module = "mlp.c_proj" if kind == "gpt2" else "mlp.down_proj"
    options = ("--model", model, "--edits", "edits.jsonl", "--output", "out")
    code, out, _ = call(capsys, "edit", *options, "--location", f"2:{module}", "--set", "training.learning_rate=0.02")
    assert code == 0
    assert f"3 edits at 2:{module}" in out

    code, _, _ = call(capsys, "evaluate", "--model", model, "--output", "out", "--patch", "out/patch")
    assert code == 0
    result = json.loads((tmp_path / "out" / "evaluate.json").read_text())
    assert result["reliability"]["value"] == 1.0
    assert [edit["output"] for edit in result["edits"]] == ["Tokyo", "Robert C. Newton", "São Tomé"]
    assert result["before"]["reliability"]["value"] == 0.0

    assert call(capsys, "apply", "--model", model, "--patch", "out/patch", "--output", "edited")[0] == 0
    assert call(capsys, "ask", "--model", "edited", "東京 is in")[1] == "São Tomé\n"
    assert call(capsys, "ask", "--model", model, "--patch", "out/patch", "東京 is in")[1] == "São Tomé\n"
    assert call(capsys, "undo", "--model", "edited", "--patch", "out/patch", "--output", "restored")[0] == 0
    restored, base = (load_model(ModelSettings(path=str(path))).model for path in ("restored", model))
    assert tensor_digests(restored) == tensor_digests(base)


def test_the_commands_that_a_release_prints_work_in_a_shell(tiny_model, tmp_path, monkeypatch, capsys):
    place = tmp_path / 'it\'s a "100%" $HOME'
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("-base model").symlink_to(tiny_model("llama"))
    Path("edits.jsonl").write_text('{"prompt": "-The capital of France is", "target": "Tokyo"}\n')
    settings = load_settings(
        None, {"model.path": "-base model", "training.learning_rate": 0.03, "training.epochs": 150}
    )
    options = ("--model=-base model", "--output", "out put", "--set", "training.learning_rate=0.03")
    assert (
        call(capsys, "edit", *options, "--set", "training.epochs=150", "--edits", "edits.jsonl", "--location", "2:mlp")[
            0
        ]
        == 0
    )
    assert call(capsys, "evaluate", *options, "--patch", "out put/patch")[0] == 0
    write_json(Path("out put/release.json"), {"tracking_uri": tracking_uri(settings.registry)})
    show_next(settings, "out put", Console(highlight=False))
    lines = capsys.readouterr().out.splitlines()
    assert shlex.split(lines[1])[-1] == tracking_uri(settings.registry)
    asked = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    shell = f'factpatch() {{ {shlex.quote(sys.executable)} -m flows "$@"; }}\n{asked[-1]}'
    root = str(Path(__file__).parents[2])
    given = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-c", shell], env=given, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("Tokyo\n", 0), done.stderr


def test_edit_without_a_location_finds_one_first(tiny_model, tmp_path, capsys):
    code, _, _ = call(
        capsys, "edit", "--model", tiny_model("llama"), "--edits", "edits.jsonl", "--output", "out", "--seed", 1
    )
    assert code == 0
    found = json.loads((tmp_path / "out" / "localize.json").read_text())
    assert (found["location"]["name"], found["candidates"]) == ("3:mlp.down_proj", [])  # three edits: none is tried
    manifest = json.loads((tmp_path / "out" / "patch" / "manifest.json").read_text())
    assert manifest["location"]["name"] == found["location"]["name"]
    assert manifest["config"]["training"]["seed"] == 1


def test_depth_first_is_a_method_by_name(tiny_model, tmp_path, capsys):
    options = ("--model", tiny_model("llama"), "--edits", "edits.jsonl", "--output", "out")
    code, _, _ = call(capsys, "edit", *options, "--location", "2:mlp.down_proj", "--training", "depth-first")
    assert code == 0
    assert json.loads((tmp_path / "out" / "edit.json").read_text())["method"] == "depth-first"


BAD = {
    "model": (["edit", "--model", "nowhere/at/all", "--edits", "edits.jsonl"], "nowhere/at/all"),
    "edits": (["validate", "absent.jsonl"], "absent.jsonl"),
    "location": (["edit", "--model", "MODEL", "--edits", "edits.jsonl", "--location", "9:mlp"], "layers 0 to 3"),
    "module": (["edit", "--model", "MODEL", "--edits", "edits.jsonl", "--location", "1:mpl"], "mlp.down_proj"),
    "setting": (["validate", "edits.jsonl", "--set", "training.epocs=3"], "did you mean 'training.epochs'"),
    "set": (["validate", "edits.jsonl", "--set", "epochs"], "SECTION.KEY=VALUE"),
    "verb": (["valdate", "edits.jsonl"], "valdate"),
    "flag": (["ask", "--model", "MODEL"], "PROMPT"),
    "columns": (["validate", "edits.jsonl", "--columns", "prompt"], "'prompt': write FIELD=PATH"),
    "column twice": (["validate", "edits.jsonl", "--columns", "id=a,id=b"], "names 'id' twice"),
    "column unknown": (["edits", "list", "--columns", "promt=a"], "edits.columns names 'promt', which no edit has"),
    "path": (["validate", "edits.jsonl", "--columns", "id=nr"], "has 'nr', which edits.columns names for 'id'; fields"),
    "prompt": (["ask", "--model", "MODEL", "  "], "blank"),
    "patch": (["ask", "--model", "MODEL", "--patch", "edits.jsonl", "Who?"], "not a patch folder"),
    "accepted": (["edit", "--model", "MODEL", "--output", "fresh"], "run validate first"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_usage_is_one_line_and_code_2(tiny_model, tmp_path, capsys, name):
    arguments, words = BAD[name]
    code, _, errors = call(
        capsys, *(tiny_model("llama") if argument == "MODEL" else argument for argument in arguments)
    )
    assert (code, len(errors)) == (2, 1)
    assert words in errors[0]
    assert not (tmp_path / "out").exists()


FILES = {
    "empty": (b"", "empty"),
    "broken": (b'{"prompt": "a", "target": "b"}\n{"prompt": \n', "row 2"),
    "binary": (b"\x89PNG\r\n\x1a\n\x00\x00\xff\xfe", "file.jsonl"),
    "targetless": (b'{"prompt": "a", "target": "b"}\n{"prompt": "c"}\n', "row 2"),
}


@pytest.mark.parametrize("name", FILES)
def test_bad_edit_files_are_one_line_and_code_2_and_write_nothing(tiny_model, tmp_path, capsys, name):
    content, words = FILES[name]
    (tmp_path / "file.jsonl").write_bytes(content)
    code, _, errors = call(capsys, "edit", "--model", tiny_model("llama"), "--edits", "file.jsonl", "--output", "out")
    assert (code, len(errors)) == (2, 1)
    assert words in errors[0]
    assert "file.jsonl" in errors[0]
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("verb", ["localize", "edit"])
def test_where_every_row_has_expired_there_is_nothing_to_write(tiny_model, tmp_path, capsys, verb):
    (tmp_path / "file.jsonl").write_text('{"prompt": "a", "target": "b", "expires": "2020-01-01"}\n')
    code, _, errors = call(capsys, verb, "--model", tiny_model("llama"), "--edits", "file.jsonl", "--output", "out")
    told = [line for line in errors if line.startswith("error")]
    assert (code, len(told)) == (2, 1)
    assert "there is no edit to write: no fact is in force" in told[0]


def test_an_unknown_key_in_params_is_one_line_and_code_2(tmp_path, capsys):
    (tmp_path / "params.yaml").write_text("traning: {}\n")
    code, _, errors = call(capsys, "validate", "edits.jsonl")
    assert (code, errors) == (2, ["error: params.yaml: unknown key 'traning'; did you mean 'training'?"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_line_and_code_2(tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    code, _, errors = call(capsys, "validate", "edits.jsonl", "--output", "locked")
    assert (code, len(errors)) == (2, 1)


def test_an_output_folder_that_is_a_file_is_one_line_and_code_2(tmp_path, capsys):
    code, _, errors = call(capsys, "validate", "edits.jsonl", "--output", "edits.jsonl")
    assert (code, len(errors)) == (2, 1)
    assert "cannot be written" in errors[0]


def test_strict_validation_refuses_with_code_1(tmp_path, capsys):
    (tmp_path / "file.jsonl").write_text('{"prompt": "a ", "target": "b"}\n{"prompt": "c", "target": "d"}\n' * 2)
    assert call(capsys, "validate", "file.jsonl")[0] == 0
    code, out, _ = call(capsys, "validate", "file.jsonl", "--strict")
    assert (code, out) == (1, "file.jsonl: JSON Lines, read as native: 4 rows\n")


FOREIGN = [
    {"ask": {"text": "Who rules {}?"}, "of": "Mali", "say": ["Ann", "Bea"], "near": {"q\x1b": "x"}, "n": 1},
    {"id": "two", "prompt": "p", "target": "t"},
]
COLUMNS = "prompt=ask.text,target=say.0,subject=of"


def test_a_preview_shows_the_first_edits_as_read_and_writes_nothing(tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in FOREIGN * 3))
    before = sorted(tmp_path.rglob("*"))
    code, out, _ = call(capsys, "validate", "rows.jsonl", "--preview", "--columns", COLUMNS, "--output", "out")
    assert code == 0
    assert out.splitlines() == [
        "rows.jsonl row 1, columns",
        '  prompt       "Who rules Mali?"',
        '  target       "Ann"',
        '  subject      "Mali"',
        "",
        "rows.jsonl row 2, native",
        '  id           "two"',
        '  prompt       "p"',
        '  target       "t"',
        '  subject      "p" (found in the prompt)',
        "",
        "rows.jsonl row 3, columns",
        '  prompt       "Who rules Mali?"',
        '  target       "Ann"',
        '  subject      "Mali"',
        "",
        "rows.jsonl: JSON Lines, read as columns: 3 rows; not used: n (3), near (3), say (other items) (3)",
        "rows.jsonl: JSON Lines, read as native: 3 rows",
    ]
    assert sorted(tmp_path.rglob("*")) == before


def test_every_verb_that_reads_edits_reads_them_by_the_map(tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in FOREIGN))
    code, out, _ = call(capsys, "validate", "rows.jsonl", "--columns", COLUMNS, "--output", "out")
    assert (code, out.splitlines()[-1]) == (0, "2 of 2 edits accepted, 0 quarantined: out")
    assert "rows.jsonl: JSON Lines, read as columns: 1 row; not used: n (1), near (1), say (other items) (1)" in out
    assert [one["rows"] for one in json.loads((tmp_path / "out" / "validate.json").read_text())["read_as"]] == [1, 1]
    code, out, _ = call(capsys, "edits", "list", "--edits", "rows.jsonl", "--columns", COLUMNS)
    assert (code, '"Who rules Mali?" -> "Ann"' in out) == (0, True)
    (tmp_path / "params.yaml").write_text(f"edits: {{path: rows.jsonl, columns: {{{COLUMNS.replace('=', ': ')}}}}}\n")
    assert call(capsys, "edits", "list")[1] == out


def test_compare_writes_a_page_and_names_what_is_no_release(tmp_path, capsys):
    for name, reliable in (("a", True), ("b", False)):
        row = {"id": "1", "prompt": "P?", "target": "Rome", "output": "Oslo", "reliable": reliable}
        (tmp_path / name).mkdir()
        (tmp_path / name / "release.json").write_text(json.dumps({"status": "registered"}))
        (tmp_path / name / "evaluate.json").write_text(json.dumps({"edits": [row]}))
    code, out, _ = call(capsys, "compare", "a", "b", "--output", "both.html")
    assert (code, out.splitlines()[0].split()[:2]) == (0, ["1", "Lost:"])
    assert "Registered, not promoted" in (tmp_path / "both.html").read_text()
    for arguments, told in (
        (("a", "nowhere"), "'nowhere' holds no release.json"),
        (("a", "b", "--output", "no/where.html"), "name a file in a folder that exists"),
        (("a", "b", "--output", "a"), "name a file in a folder that exists"),
    ):
        code, _, errors = call(capsys, "compare", *arguments)
        assert (code, len(errors)) == (2, 1)
        assert told in errors[0]


def test_every_verb_has_help(capsys):
    from flows.verbs import VERBS

    for verb in VERBS:
        with pytest.raises(SystemExit) as caught:
            main([verb, "--help"])
        assert caught.value.code == 0
        assert verb in capsys.readouterr().out
