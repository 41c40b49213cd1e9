"""A PostgreSQL of one's own for a test, as a user without special rights; or why there is none."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

BIN = Path("/usr/lib/postgresql/15/bin")
NOBODY = "nobody"  # PostgreSQL refuses to run as root


class Database(NamedTuple):
    """A database that is there for a test alone."""

    url: str
    kill: Callable[[], None]  # all of its processes at once
    start: Callable[[], None]  # again


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The URL of a new, empty database, reached through a socket file; it ends with the block."""
    with postgres_server() as database:
        yield database.url


@contextlib.contextmanager
def postgres_server() -> Iterator[Database]:
    """The same with a switch."""
    if not (BIN / "initdb").is_file():
        pytest.skip(f"no PostgreSQL 15 in {BIN}")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    # Below /tmp: the path of a socket has at most 107 characters, those of pytest have more.
    folder = Path(tempfile.mkdtemp(prefix="utgrec-pg-", dir="/tmp"))
    account = {}
    if os.geteuid() == 0:
        user = pwd.getpwnam(NOBODY)
        os.chown(folder, user.pw_uid, user.pw_gid)
        account = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def call(name: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(BIN / name), *arguments],
            cwd=folder,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            **account,
        )
        assert done.returncode == 0, done.stderr.decode()

    data, log = str(folder / "data"), str(folder / "log")
    try:
        call("initdb", "-D", data, "-U", "shop", "--auth=trust", "-E", "UTF8", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories={folder}"

        def start() -> None:
            call("pg_ctl", "-D", data, "-l", log, "-w", "-o", options, "start")

        def kill() -> None:
            first = psutil.Process(int((Path(data) / "postmaster.pid").read_text().split()[0]))
            processes = [first, *first.children(recursive=True)]
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):  # one may follow another by itself
                    process.kill()
            psutil.wait_procs(processes, timeout=30)

        start()
        try:
            yield Database(f"postgresql://shop@/postgres?host={folder}", kill, start)
        finally:
            call("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
