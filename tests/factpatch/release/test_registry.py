"""Addresses, reachability, and the lock that one release at a time holds."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import make_url  # what MLflow and Prefect read addresses with

from factpatch.addresses import sqlite_address, sqlite_file, without_password
from factpatch.errors import InputError, RefusedError, UnavailableError
from factpatch.release.registry import lock_file, locked, reaching, tracking_uri
from factpatch.settings.config import RegistrySettings, Settings, to_dict
from factpatch.settings.shown import shown_settings

HOLD = """
import sys, time
from pathlib import Path
from factpatch.release.registry import locked
with locked(Path(sys.argv[1]), "a release of 'atlas' runs into 'out'"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_store_is_named_and_passwords_are_not(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(RegistrySettings()) == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert tracking_uri(RegistrySettings()) == "http://127.0.0.1:9"
    assert tracking_uri(RegistrySettings(tracking_uri="http://127.0.0.1:8")) == "http://127.0.0.1:8"
    assert without_password("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=20)


@given(names.filter(lambda name: name not in (".", "..")), st.sampled_from(["", "aiosqlite"]))
def test_an_address_names_the_file_whatever_its_folder_is_called(name, driver):
    path = Path("/nowhere") / name / "mlflow.db"
    address = sqlite_address(path, driver)
    assert (make_url(address).database, dict(make_url(address).query)) == (str(path), {})
    assert sqlite_file(address) == path


def test_addresses_are_read_as_sqlalchemy_reads_them():
    assert sqlite_file("sqlite:///mlruns/mlflow.db") == Path("mlruns/mlflow.db")
    assert sqlite_file("sqlite+pysqlite:////a%2520b/m.db?timeout=5") == Path("/a%20b/m.db")
    for other in ("sqlite://", "sqlite:///:memory:", "sqlite:///file:x?uri=true", "postgresql:///x", "http://host"):
        assert sqlite_file(other) is None
    with pytest.raises(InputError, match="rename it"):
        sqlite_address(Path("/caf\udce9/mlflow.db"))


def test_settings_are_shown_without_a_password():
    address = "postgresql://me:secret@host/db"
    shown = shown_settings(Settings(registry=RegistrySettings(tracking_uri=address)))
    assert shown == to_dict(Settings(registry=RegistrySettings(tracking_uri="postgresql://me:***@host/db")))
    assert shown_settings(Settings()) == to_dict(Settings())


def test_what_cannot_be_reached_is_told_at_once_in_one_line(tmp_path):
    (tmp_path / "text.db").write_text("this is no database")
    for uri in ("http://127.0.0.1:9", "postgresql+psycopg://127.0.0.1:9/x", f"sqlite:///{tmp_path / 'text.db'}"):
        start = time.monotonic()
        with pytest.raises(UnavailableError, match="cannot be reached") as caught, reaching(uri):
            pytest.fail("the block must not run")
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 2
        assert time.monotonic() - start < 5


def test_the_locks_of_two_models_lie_beside_their_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    local = RegistrySettings(name="a b", tracking_uri=f"sqlite:///{tmp_path / 'x' / 'mlflow.db'}")
    assert lock_file(local, "release") == tmp_path / "x" / "locks" / "a b.release.lock"
    assert lock_file(replace(local, name="東京"), "release") != lock_file(replace(local, name="京都"), "release")
    remote = RegistrySettings(name="atlas", tracking_uri="http://127.0.0.1:9")
    assert lock_file(remote, "release") == tmp_path / "mlruns" / "locks" / "atlas.release.lock"


def test_a_second_holder_is_refused_with_the_first_ones_name_and_a_killed_one_frees_the_lock(tmp_path):
    path = tmp_path / "locks" / "atlas.lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        told = rf"a release of 'atlas' runs into 'out' since \S+ \(process {holder.pid} on .*\); wait for it to end"
        with pytest.raises(RefusedError, match=told), locked(path, "another"):
            pytest.fail("the block must not run")
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with locked(path, "the next"):
        pass
    assert list(path.parent.iterdir()) == [path]  # nobody is named any more


def test_whoever_has_patience_gets_the_lock(tmp_path):
    path = tmp_path / "atlas.lock"
    code = HOLD.replace("600", "0.5")
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with locked(path, "the next", patience=60):
        assert holder.wait(60) == 0


def test_a_lock_that_cannot_be_written_is_bad_input(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"), locked(tmp_path / "file" / "x.lock", "a release"):
        pytest.fail("the block must not run")
