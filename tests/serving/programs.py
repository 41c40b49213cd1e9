"""`utgrec serve` as a program of its own, reached through a port of this machine."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2

STARTS_WITHIN_S = 180
STOPS_WITHIN_S = 60


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def program(run: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server that is ready, and its URL; it is told to stop at the end if it still runs."""
    port = free_port()
    command = [sys.executable, "-m", "utgrec", "serve", str(run), "--port", str(port), *options]
    with open(run / "serve.log", "wb") as log:
        server = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            env=os.environ,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, server)
        yield server, url
    finally:
        if server.poll() is None:
            server.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(STOPS_WITHIN_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # it and what it started
        server.wait(10)
        server.stdout.close()


def wait_until_ready(url: str, server: "subprocess.Popen[bytes]") -> None:
    """Return when the server answers."""
    until = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < until and server.poll() is None:
        try:
            if httpx2.get(f"{url}/readyz", timeout=10).status_code == 200:
                return
        except httpx2.HTTPError:
            time.sleep(0.1)
    raise AssertionError("the server did not start")


def children(process: int) -> list[int]:
    """Processes that a process started."""
    import psutil

    return [child.pid for child in psutil.Process(process).children(recursive=True)]
