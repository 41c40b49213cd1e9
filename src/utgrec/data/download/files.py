"""Fetch several files, tell how it goes on, or only list what would be fetched."""

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpx2

from utgrec.data.download.client import DownloadConfig, make_client
from utgrec.data.download.fetch import RETRIED, Wanted, fetch, part_size, published_sha256
from utgrec.data.download.hosts import Hosts
from utgrec.errors import DownloadFailed
from utgrec.progress import Progress, silent

MIB = 2**20
TOGETHER = 4  # files at the same time, over all hosts
OFFLINE = "UTGREC_OFFLINE"


class Listed(NamedTuple):
    """One file of a dry run."""

    url: str
    path: Path
    bytes: int | None  # of the whole file; None = the server does not say
    there: int  # bytes that are here already
    sha256: str | None  # as published
    problem: str | None  # why it cannot be had

    @property
    def missing(self) -> int | None:
        """Bytes still to fetch."""
        return None if self.bytes is None else self.bytes - self.there


def is_offline() -> bool:
    """Whether the environment forbids the network (UTGREC_OFFLINE=1)."""
    return os.environ.get(OFFLINE, "").lower() not in ("", "0", "false", "no")


def download(
    wanted: Sequence[Wanted], config: DownloadConfig, progress: Progress | None = None
) -> list[Path]:
    """Fetch files, some at the same time; each is whole afterwards.

    Raises:
        DownloadFailed: one of them cannot be had, or the network is forbidden.
        StorageError: no room on the disk.
    """
    missing = [file for file in wanted if not file.path.exists()]
    if missing:
        require_online(missing)
        tell = _Totals(missing, progress or silent)
        hosts = Hosts(config.per_host)
        with make_client(config) as client, ThreadPoolExecutor(TOGETHER) as pool:
            tasks = [
                pool.submit(fetch, client, file, hosts, config, tell.of(number))
                for number, file in enumerate(missing)
            ]
            try:
                for task in tasks:
                    task.result()
            finally:
                for task in tasks:
                    task.cancel()
        tell.end()
    return [file.path for file in wanted]


def list_files(wanted: Sequence[Wanted], config: DownloadConfig) -> list[Listed]:
    """Sizes of files, here and at the server; nothing is fetched or written.

    Raises:
        DownloadFailed: the network is forbidden, and a file is not here.
    """
    missing = [file for file in wanted if not file.path.exists()]
    if not missing:
        return [_here(file) for file in wanted]
    require_online(missing)
    hosts = Hosts(config.per_host)
    with make_client(config) as client, ThreadPoolExecutor(TOGETHER) as pool:

        def look(file: Wanted) -> Listed:
            if file.path.exists():
                return _here(file)
            with hosts.turn(httpx2.URL(file.url).host):
                return _at_server(client, file)

        return list(pool.map(look, wanted))


def require_online(missing: Sequence[Wanted]) -> None:
    """Stop if the environment forbids the network.

    Raises:
        DownloadFailed: it does; the message names what is missing.
    """
    if is_offline():
        named = ", ".join(str(file.path) for file in missing)
        raise DownloadFailed(
            f"{OFFLINE} forbids the network, and {named} is not there; copy it there, or unset it"
        )


def _here(file: Wanted) -> Listed:
    size = file.path.stat().st_size
    return Listed(file.url, file.path, size, size, file.sha256, None)


def _at_server(client: httpx2.Client, file: Wanted) -> Listed:
    there = part_size(file.path)
    try:
        response = client.head(file.url)
        if response.status_code in (403, 405, 501):  # no HEAD here: ask for one byte
            with client.stream("GET", file.url, headers={"Range": "bytes=0-0"}) as response:
                pass
    except (httpx2.RequestError, httpx2.InvalidURL) as error:
        return Listed(file.url, file.path, None, there, None, f"{type(error).__name__}: {error}")
    if response.status_code >= 400:
        busy = "busy, " if response.status_code in RETRIED else ""
        problem = f"{busy}the server answered {response.status_code} {response.reason_phrase}"
        return Listed(file.url, file.path, None, there, None, problem)
    published = file.sha256 or published_sha256(response)
    return Listed(file.url, file.path, _size(response), there, published, None)


def _size(response: httpx2.Response) -> int | None:
    whole = response.headers.get("Content-Range", "").rpartition("/")[2]
    linked = [each.headers.get("X-Linked-Size", "") for each in (*response.history, response)]
    for value in (whole, *linked, response.headers.get("Content-Length", "")):
        if value.isdigit() and (response.status_code != 206 or value == whole):
            return int(value)
    return None


class _Totals:
    """The progress of several files as one, in MiB; safe for threads."""

    def __init__(self, files: Sequence[Wanted], progress: Progress) -> None:
        self._names = [file.path.name for file in files]
        self._done = [part_size(file.path) for file in files]
        self._totals: list[int | None] = [None] * len(files)
        self._progress = progress
        self._lock = threading.Lock()
        self._spoke = 0.0

    def of(self, number: int) -> "_Teller":
        """What the download of one file calls."""
        return _Teller(self, number)

    def tell(self, number: int, done: int, total: int | None) -> None:
        """So much of one file is there."""
        with self._lock:
            self._done[number], self._totals[number] = done, total
            now = time.monotonic()
            if now - self._spoke < 0.2:
                return
            self._spoke = now
            known = sum(max(t or 0, d) for t, d in zip(self._totals, self._done, strict=True))
            # Never "finished" before the end: sizes of files that wait are not known yet.
            self._progress(
                "download (MiB)",
                sum(self._done) // MIB,
                known // MIB + 1,
                self._names[number],
            )

    def end(self) -> None:
        """All files are there."""
        done = sum(self._done) // MIB + 1
        self._progress("download (MiB)", done, done, f"{len(self._names)} files")


class _Teller:
    def __init__(self, totals: _Totals, number: int) -> None:
        self._totals, self._number = totals, number

    def __call__(self, done: int, total: int | None) -> None:
        self._totals.tell(self._number, done, total)
