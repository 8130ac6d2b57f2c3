"""What `factpatch doctor` finds on a machine, and that other verbs stop for it before any work, with code 2 and a cure."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
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


def alone(*arguments: str, **environment: str) -> tuple[int, list[str], float]:
    """Exit code, lines and seconds of a verb in a process that knows of no more than is given."""
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    start = time.process_time(), os.times().children_user
    command = [sys.executable, "-m", "flows", *arguments]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr).splitlines(), os.times().children_user - start[1]


def told(capsys, *arguments: str) -> str:
    """The one line of a verb that ends with code 2 and leaves nothing."""
    code = main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert code == 2, line
    assert not Path("runs").exists()
    return line


def test_doctor_prints_a_line_a_check_and_nothing_is_in_the_way():
    Path("home").mkdir()
    code, lines, seconds = alone("doctor", HOME=str(Path("home").resolve()), USER="ann")
    assert (code, lines[-1]) == (0, "0 faults in the way of a release")
    assert [re.split(r"  +", line)[:2] for line in lines[:-1]] == [["ok", name] for name in doctor.CHECKS]
    assert lines[1].endswith("home, user ann")
    assert seconds < 4


def test_the_quiet_checks_of_a_run_are_quick_and_import_neither_torch_nor_mlflow():
    code = (
        "import sys\nfrom factpatch.config import load_settings\nfrom flows.doctor import check_machine\n"
        "check_machine('run', load_settings(), 'out')\n"
        "assert not {'torch', 'mlflow', 'transformers', 'datasets'} & set(sys.modules)\n"
    )
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": os.environ["HOME"]}
    before = os.times()
    subprocess.run([sys.executable, "-c", code], env=given, check=True)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    assert used < 4  # seconds of processor time; under two where the machine does nothing else


def test_a_home_where_nothing_can_be_written_is_told_by_doctor_and_run():
    code, lines, _ = alone("doctor", HOME="/proc/none")
    (fault,) = [line for line in lines if line.startswith("fault")]
    assert code == 2
    assert "set PREFECT_HOME (or HOME) to a folder you can write" in fault
    code, lines, _ = alone("run", HOME="/proc/none")
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith("error: folder '/proc/none/.prefect' of Prefect cannot be made")
    assert not Path("runs").exists()


@pytest.mark.skipif(not shutil.which("unshare"), reason="no unshare")
def test_an_account_without_name_and_home_is_told_and_one_with_a_home_is_called_by_its_number():
    nameless = ["unshare", "--user", "--map-user=12345", "--map-group=12345"]
    if subprocess.run([*nameless, "true"], capture_output=True, check=False).returncode:
        pytest.skip("user namespaces are switched off")
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    command = [*nameless, sys.executable, "-m", "flows"]
    done = subprocess.run([*command, "run"], env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "HOME is not set, and the system knows no home of uid 12345; set HOME" in done.stderr
    Path("ledger").mkdir()
    shutil.move("edits.jsonl", "ledger/0001.jsonl")
    code = "from flows.__main__ import main; main(['edits', 'list', '--edits', 'ledger'])"
    listed = subprocess.run(
        [*nameless, sys.executable, "-c", code], env=given, capture_output=True, text=True, check=True
    )
    name = listed.stdout.split()[0]
    done = subprocess.run(
        [*command, "edits", "revert", name, "--edits", "ledger"], env=given, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert '"owner": "uid 12345"' in Path(f"ledger/0002-revert-{name}.jsonl").read_text()


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
    ],
)
def test_a_run_stops_for_stores_and_servers_before_any_work(environment, words, monkeypatch):
    Path("pf").mkdir()
    Path("pf/profiles.toml").write_text(CLOUDY)
    code, lines, _ = alone("run", **{"HOME": os.environ["HOME"], **environment})
    assert (code, len(lines)) == (2, 1)
    assert all(word in lines[0] for word in words), lines
    assert not Path("runs").exists()


def test_folders_that_cannot_be_written_are_told_with_their_setting(capsys):
    assert "'/proc/out' for results cannot be written; choose another --output" in told(
        capsys, "run", "--output", "/proc/out"
    )
    line = told(capsys, "run", "--set", "trunk.folder=/proc/trunk")
    assert "'/proc/trunk' of trunk.folder cannot be written; set trunk.folder to one that can, or to null" in line


def test_a_full_disk_is_told(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "LEAST_ROOM", 2**62)
    assert "is full" in told(capsys, "history")
    monkeypatch.setattr(doctor.tempfile, "gettempdir", raise_no_folder)
    assert "set TMPDIR to one that can" in told(capsys, "history")


def raise_no_folder() -> str:
    raise FileNotFoundError(2, "No usable temporary directory found")


def test_the_library_alone_names_the_extra_that_releases_need():
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('prefect', 'mlflow'): raise ModuleNotFoundError(name=name)\n"
        "import importlib.util\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name: None if name in ('prefect', 'mlflow') else real(name)\n"
        "from flows.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    for verb in (["run"], ["history"], ["validate", "edits.jsonl"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *verb],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr.splitlines()) == (
            2, ["error: prefect, mlflow not installed; run: pip install 'factpatch[release]'"]
        )  # fmt: skip


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
    code, lines, _ = alone("edits", "list", HOME=os.environ["HOME"], PYTHONIOENCODING="ascii")
    assert code == 0
    assert '-> "\\u6771\\u4eac"' in lines[0]
