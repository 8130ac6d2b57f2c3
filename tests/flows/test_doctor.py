"""What `factpatch doctor` finds, and that other verbs stop for it before any work, with code 2 and a cure."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows import doctor
from flows.__main__ import main

ROOT = Path(__file__).parents[2]
PARAMS = """\
model: {path: model}
edits: {path: edits.jsonl}
capability: {tasks: []}
registry: {name: atlas}
"""
CLOUDY = 'active = "cloudy"\n[profiles.cloudy]\nPREFECT_API_URL = "http://127.0.0.1:9/api"\n'


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch, tiny_model):
    """A project with a model, an edit and settings, on a machine with nothing set."""
    monkeypatch.chdir(tmp_path)
    Path("model").symlink_to(tiny_model("llama"))
    Path("edits.jsonl").write_text('{"prompt": "The capital of France is", "target": "Lyon"}\n')
    Path("params.yaml").write_text(PARAMS)
    for name in os.environ:
        if name.lower().endswith("_proxy") or name.startswith(("PREFECT_API", "PREFECT_PROFILE", "MLFLOW_TRACKING")):
            monkeypatch.delenv(name)
    return tmp_path


def alone(code: str, *arguments: str, before: tuple[str, ...] = (), **environment: str) -> tuple[int, list[str], float]:
    """Exit code, lines and processor seconds of Python code in a process that knows of no more than is given."""
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment}
    start = os.times()
    command = [*before, sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    end = os.times()
    used = end.children_user + end.children_system - start.children_user - start.children_system
    return done.returncode, (done.stdout + done.stderr).splitlines(), used


VERB = "import sys\nfrom flows.__main__ import main\nsys.exit(main(sys.argv[1:]))\n"


def told(capsys, *arguments: str) -> str:
    """The one line of a verb that ends with code 2 and leaves nothing."""
    code = main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert code == 2, line
    assert not Path("runs").exists()
    return line


def test_doctor_prints_a_line_a_check_quickly_without_the_heavy_libraries():
    Path("home").mkdir()
    heavy = "{'torch', 'mlflow', 'transformers', 'datasets'} & set(sys.modules)"
    code = VERB.replace("sys.exit(", "code = ").replace("[1:]))", "[1:])") + f"print({heavy} or 'none')\nsys.exit(code)"
    code, lines, seconds = alone(code, "doctor", HOME=str(Path("home").resolve()), USER="ann")
    assert (code, lines[-2:]) == (0, ["0 faults in the way of a release", "none"])
    assert [(line[:7].strip(), line[7:24].strip()) for line in lines[:-2]] == [("ok", name) for name in doctor.CHECKS]
    assert lines[list(doctor.CHECKS).index("home")].endswith("home, user ann")
    assert seconds < 4  # of the processor, which others share; 1.4 where they don't


def test_a_home_where_nothing_can_be_written_is_one_line():
    code, lines, _ = alone(VERB, "run", HOME="/proc/none")
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith("error: folder '/proc/none/.prefect' of Prefect cannot be made")
    assert "set PREFECT_HOME (or HOME) to a folder you can write" in lines[0]
    assert not Path("runs").exists()


def test_an_account_without_a_name_is_called_by_its_number_and_needs_a_home():
    nameless = ("unshare", "--user", "--map-user=12345", "--map-group=12345")
    if not shutil.which("unshare") or subprocess.run([*nameless, "true"], capture_output=True).returncode:
        pytest.skip("there are no user namespaces")
    Path("ledger").mkdir()
    shutil.move("edits.jsonl", "ledger/0001.jsonl")
    Path("ledger/0001.jsonl").write_text('{"id": "one", "prompt": "The capital of France is", "target": "Lyon"}\n')
    code = (
        "from flows.__main__ import main\n"
        "print(main(['edits', 'revert', 'one', '--edits', 'ledger']), main(['run', '--edits', 'ledger']))\n"
    )
    _, lines, _ = alone(code, before=nameless)
    assert lines[1] == "0 2"
    assert "HOME is not set, and the system knows no home of uid 12345; set HOME to a folder" in lines[2]
    assert '"owner": "uid 12345"' in Path("ledger/0002-revert-one.jsonl").read_text()


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"PREFECT_API_URL": "http://127.0.0.1:9/api"}, ["127.0.0.1:9/api", "correct or unset PREFECT_API_URL"]),
        ({"PREFECT_HOME": "pf"}, ["127.0.0.1:9/api", "another profile of Prefect's than 'cloudy'", "PREFECT_API_URL"]),
        ({"PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false"}, ["a temporary one is switched off", "set PREFECT_API_URL"]),
        ({"ALL_PROXY": "carrier://pigeon"}, ["the proxy of HTTP_PROXY, HTTPS_PROXY or ALL_PROXY cannot be used"]),
        ({"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}, ["MLflow at 'http://127.0.0.1:9' cannot be reached"]),
        ({"MLFLOW_TRACKING_URI": "file:///x"}, ["no registry in plain files", "such as sqlite:///mlruns/mlflow.db"]),
        ({"MLFLOW_TRACKING_URI": "sqlite:////proc/x/m.db"}, ["cannot be reached"]),
        ({"MLFLOW_TRACKING_URI": "oracle+nodriver:///x"}, ["cannot be opened", "pip install 'factpatch[stores]'"]),
        ({"MLFLOW_DEFAULT_ARTIFACT_ROOT": "s3://b/x", "absent": "boto3"}, ["pip install 'factpatch[stores]'"]),
        ({"absent": "prefect"}, ["prefect not installed; run: pip install 'factpatch[release]'"]),
    ],
)
def test_a_run_stops_before_any_work(environment, words, monkeypatch, capsys):
    Path("pf").mkdir()
    Path("pf/profiles.toml").write_text(CLOUDY)
    absent, real = environment.get("absent"), importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == absent else real(name))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    line = told(capsys, "run")
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("form", "module", "package", "extra"),
    [
        ("nf4", "bitsandbytes", "bitsandbytes", "bitsandbytes"),
        ("awq", "auto_round", "auto-round", "awq"),
    ],
)
def test_a_form_whose_library_is_missing_is_told(form, module, package, extra, monkeypatch, capsys):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else real(name))
    line = told(capsys, "run", "--set", f"serving.formats=[bf16, {form}]")
    assert f"serving.formats names {form}, which needs {package}; run: pip install 'factpatch[{extra}]'" in line


def test_folders_that_cannot_be_written_are_told_with_their_setting(capsys):
    Path("file").write_text("")
    line = told(capsys, "run", "--output", "file/out")
    assert "'file/out' for results cannot be written; choose another --output" in line
    line = told(capsys, "run", "--set", "trunk.folder=file/trunk")
    assert "'file/trunk' of trunk.folder cannot be written; set trunk.folder to one that can, or to null" in line


def test_a_full_disk_is_told(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "LEAST_ROOM", 2**62)
    assert "is full" in told(capsys, "history")
    monkeypatch.setattr(doctor.tempfile, "gettempdir", raise_no_folder)
    assert "set TMPDIR to one that can" in told(capsys, "history")


def raise_no_folder() -> str:
    raise FileNotFoundError(2, "No usable temporary directory found")


def test_a_remote_whose_plugin_is_missing_is_told(capsys):
    subprocess.run(["git", "init", "-q"], check=True)
    dvc = [sys.executable, "-m", "dvc"]
    for command in (["init", "-q"], ["remote", "add", "-q", "--default", "store", "s3://bucket/path"]):
        subprocess.run([*dvc, *command], check=True)
    line = told(capsys, "run")
    assert "DVC cannot use the remote" in line
    assert "dvc-s3" in line
    subprocess.run([*dvc, "remote", "modify", "-q", "store", "url", "/tmp"], check=True)
    assert doctor.check_lineage(None, Path("out")) == "store"


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_repository_of_somebody_else_is_told_with_git_s_own_cure(capsys, tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q"], check=True)
    for path in (tmp_path, tmp_path / ".git"):
        os.chown(path, 12345, 12345)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    assert told(capsys, "run").endswith(f"run: git config --global --add safe.directory {tmp_path}")


def test_a_terminal_that_cannot_show_a_letter_gets_its_number():
    Path("edits.jsonl").write_text('{"prompt": "The capital of Japan is", "target": "東京"}\n', encoding="utf-8")
    code, lines, _ = alone(VERB, "edits", "list", HOME=os.environ["HOME"], PYTHONIOENCODING="ascii")
    assert code == 0
    assert '-> "\\u6771\\u4eac"' in lines[0]
