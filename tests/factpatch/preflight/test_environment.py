"""What libraries take amiss around a process: accounts without a name, proxies, homes with odd names."""

from __future__ import annotations

import getpass
import os
import pwd
import urllib.request

import httpx
import pytest
from sqlalchemy import make_url

from factpatch.preflight.environment import DATABASE, bypass_proxies, name_user, place_database, user_name

PROXY = "http://127.0.0.1:9"


@pytest.fixture
def nameless(monkeypatch):
    """An account that the system has no name for, as in a container with `--user 12345`."""

    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_an_account_without_a_name_is_called_by_its_number_by_us_and_by_libraries(nameless, monkeypatch):
    assert user_name() == f"uid {os.getuid()}"
    monkeypatch.setenv("USER", "")
    name_user(os.environ)
    assert getpass.getuser() == user_name() == f"uid {os.getuid()}"


def test_an_account_with_a_name_keeps_it():
    given = {"LOGNAME": "ann"}
    name_user(given)
    assert given == {"LOGNAME": "ann"}


@pytest.mark.parametrize("given", [{}, {"no_proxy": "intra.example"}, {"NO_PROXY": "intra.example, ::1"}])
def test_servers_of_this_machine_are_reached_past_proxies_and_others_as_before(given, monkeypatch):
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HTTPS_PROXY": PROXY, "all_proxy": PROXY, **given}.items():
        monkeypatch.setenv(name, value)
    bypass_proxies(os.environ)
    for host in ("127.0.0.1", "localhost", "[::1]"):
        with httpx.Client() as client, pytest.raises(httpx.ConnectError) as caught:
            client.get(f"http://{host}:1", timeout=5)
        assert caught.value.request.url.port == 1  # refused by the host itself
        assert client._transport_for_url(httpx.URL(f"http://{host}:1")) is client._transport
        assert urllib.request.proxy_bypass(host.strip("[]"))
    assert client._transport_for_url(httpx.URL("http://example.org")) is not client._transport
    assert bool(urllib.request.proxy_bypass("intra.example")) == bool(given)


@pytest.mark.parametrize("given", [{}, {"NO_PROXY": "a"}, {"HTTP_PROXY": PROXY, "NO_PROXY": "*"}, {"HTTP_PROXY": ""}])
def test_nothing_is_changed_where_no_proxy_would_catch_anything(given):
    after = dict(given)
    bypass_proxies(after)
    assert after == given


@pytest.mark.parametrize(("home", "named"), [("plain", False), ("a b", False), ("run%20one", True), ("a?b", True)])
def test_prefect_s_database_lies_in_its_home(home, named, tmp_path):
    given = {"PREFECT_HOME": str(tmp_path / home)}
    place_database(given)
    assert (DATABASE in given) == named
    address = given.get(DATABASE, f"sqlite+aiosqlite:///{tmp_path / home}/prefect.db")  # the latter is Prefect's own
    assert make_url(address).database == str(tmp_path / home / "prefect.db")
