"""What a process finds around it, and what libraries take amiss there: an account without a name, proxies that catch
this machine's own servers, a home whose name means something in an address."""

from __future__ import annotations

import getpass
import os
from collections.abc import MutableMapping
from pathlib import Path

from factpatch.addresses import sqlite_address

LOOPBACK = ("localhost", "127.0.0.1", "::1")
DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"


def user_name() -> str:
    """Who runs this: the account's name, or `uid 12345` where the system has none for it, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def name_user(environment: MutableMapping[str, str]) -> None:
    """Give an account without a name one in the environment, since libraries ask for it too and fail without."""
    if not any(environment.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
        environment["USER"] = user_name()


def bypass_proxies(environment: MutableMapping[str, str]) -> None:
    """Have clients reach servers of this machine past the proxies that the environment names, if it names any."""
    proxies = {name.lower() for name, value in environment.items() if value}
    if not proxies & {"http_proxy", "https_proxy", "all_proxy"}:
        return
    named = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    hosts = [host.strip() for host in named.split(",") if host.strip()]
    if "*" not in hosts:
        together = ",".join([*hosts, *(host for host in LOOPBACK if host not in hosts)])
        environment["no_proxy"] = environment["NO_PROXY"] = together


def place_database(environment: MutableMapping[str, str]) -> None:
    """Name Prefect's own database where Prefect would not find it: it pastes its home into an address as it is."""
    home = Path(environment.get("PREFECT_HOME") or os.path.expanduser("~/.prefect"))
    address = sqlite_address(home / "prefect.db", "aiosqlite")
    if (
        not address.endswith(str(home.resolve() / "prefect.db"))
        and "PREFECT_API_DATABASE_CONNECTION_URL" not in environment
    ):
        environment.setdefault(DATABASE, address)
