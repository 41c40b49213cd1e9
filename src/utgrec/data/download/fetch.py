"""Fetch one file: go on where the connection broke, check what came, rename it when it is whole.

Until then the bytes are in NAME.part, and what is known about them in NAME.part.json. A part is
only continued if the server says that the file is still the same (If-Range with its ETag or date).
"""

import base64
import contextlib
import dataclasses
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx2

from utgrec import storage
from utgrec.data.download.client import DownloadConfig
from utgrec.data.download.hosts import Hosts
from utgrec.data.web import retry_after, wait_before
from utgrec.errors import CorruptFile, DownloadFailed, StorageError

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
SPARE_BYTES = 2**24  # room that must be left on the disk
FULL = "what came is kept: make room and run it again to go on"
MOST_TRIES = 1000  # however much each of them brings

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there, and the bytes of the whole file (None: unknown)."""


class Wanted(NamedTuple):
    """A file to fetch."""

    url: str
    path: Path
    sha256: str | None = None  # hex, where somebody published it


@dataclasses.dataclass(kw_only=True)
class _Part:
    """What is known about the bytes in NAME.part."""

    url: str
    etag: str | None = None
    modified: str | None = None
    size: int | None = None
    sha256: str | None = None


class _Again(Exception):
    """This try failed; another one may not."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


def fetch(
    client: httpx2.Client,
    wanted: Wanted,
    hosts: Hosts,
    config: DownloadConfig,
    progress: Progress | None = None,
) -> Path:
    """Fetch a file to its path; a file that is there already is not fetched again.

    Raises:
        DownloadFailed: refused, gone, given up after several tries, or not what was published.
        StorageError: no room on the disk.
    """
    if wanted.path.exists():
        return wanted.path
    tell = progress or (lambda done, total: None)
    wanted.path.parent.mkdir(parents=True, exist_ok=True)
    host = httpx2.URL(wanted.url).host
    idle = 0
    with _alone(wanted.path):
        for _ in range(MOST_TRIES):
            before = part_size(wanted.path)
            try:
                with hosts.turn(host), storage.room(wanted.path.parent, FULL):
                    _try(client, wanted, config, tell)
                return wanted.path
            except _Again as error:
                idle = 0 if part_size(wanted.path) > before else idle + 1
                wait = _wait(error, idle, config)
                if idle >= config.attempts or wait > config.longest_wait_s:
                    raise DownloadFailed(_given_up(wanted, error, wait, idle)) from error
                if error.wait_s is not None:
                    hosts.pause(host, wait)
                else:
                    hosts.sleep(wait)
    raise DownloadFailed(f"{wanted.url}: {MOST_TRIES} tries brought no whole file")


def _try(client: httpx2.Client, wanted: Wanted, config: DownloadConfig, tell: Progress) -> None:
    part, have = _known(wanted)
    headers = {}
    if have and (part.etag or part.modified):
        headers = {"Range": f"bytes={have}-", "If-Range": part.etag or part.modified or ""}
    try:
        with client.stream("GET", wanted.url, headers=headers) as response:
            _refuse_downgrade(response)
            if response.status_code == 416 and have and _total(response) == have:
                part.size = have
            else:
                _receive(response, wanted, part, have, config, tell)
    except httpx2.TooManyRedirects as error:
        raise DownloadFailed(
            f"{wanted.url} redirects more than {config.redirects} times; is it a loop?"
        ) from error
    except (httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:
        raise DownloadFailed(f"{wanted.url} cannot be fetched ({error})") from error
    except httpx2.TimeoutException as error:
        raise _Again(f"the server was silent too long ({type(error).__name__})") from error
    except httpx2.RequestError as error:
        raise _Again(f"{type(error).__name__}: {error}") from error
    _finish(wanted, part)


def _receive(
    response: httpx2.Response,
    wanted: Wanted,
    part: _Part,
    have: int,
    config: DownloadConfig,
    tell: Progress,
) -> None:
    """Write the body of a response behind the bytes that are there, or anew."""
    status = response.status_code
    if status in RETRIED:
        asked = retry_after(response.headers.get("Retry-After"), time.time())
        raise _Again(f"the server answered {status} {response.reason_phrase}", asked)
    if status == 206 and have:
        if _start(response) != have or not _same(part, response):
            _drop(wanted.path)
            raise _Again("the file changed on the server while it was fetched; starting anew")
    elif status == 200:
        have = 0
        part.size = _length(response)
        part.etag = _strong(response.headers.get("ETag"))
        part.modified = response.headers.get("Last-Modified")
        part.sha256 = published_sha256(response)
        _drop(wanted.path)
        storage.write_json(_state_path(wanted.path), dataclasses.asdict(part))
    elif status == 416:
        _drop(wanted.path)
        raise _Again("the server has no such part of the file; starting anew")
    else:
        raise DownloadFailed(
            f"{wanted.url}: the server answered {status} {response.reason_phrase}; "
            "check the address, or name another mirror"
        )
    coded = response.headers.get("Content-Encoding", "identity")
    if coded != "identity" and not wanted.path.name.endswith(f".{coded[:2]}"):
        raise DownloadFailed(
            f"{wanted.url} came encoded as {coded}, which was not asked for; name another mirror"
        )
    _require_room(wanted.path, (part.size or 0) - have)
    with open(_part_path(wanted.path), "ab") as stream:
        try:
            for data in response.iter_raw(config.chunk_bytes):
                stream.write(data)
                have += len(data)
                tell(have, part.size)
        finally:
            stream.flush()
            os.fsync(stream.fileno())
    if part.size is not None and have != part.size:
        if have > part.size:
            _drop(wanted.path)
        raise _Again(f"{have:,} bytes came, the server had announced {part.size:,}")


def _finish(wanted: Wanted, part: _Part) -> None:
    """Check the whole file and give it its name."""
    expected = wanted.sha256 or part.sha256
    path = _part_path(wanted.path)
    if expected is not None:
        found = storage.hash_file(path)
        if found != expected.lower():
            _drop(wanted.path)
            raise _Again(f"its SHA-256 is {found}, published is {expected.lower()}")
    os.replace(path, wanted.path)
    _state_path(wanted.path).unlink(missing_ok=True)


def published_sha256(response: httpx2.Response) -> str | None:
    """The SHA-256 (hex) that a server states for a file, in one of the usual headers."""
    for each in (*response.history, response):
        linked = (each.headers.get("X-Linked-ETag") or "").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", linked):
            return linked
    digest = re.search(r"sha-256=:([A-Za-z0-9+/=]+):", response.headers.get("Repr-Digest") or "")
    if digest:
        with contextlib.suppress(ValueError):
            return base64.b64decode(digest.group(1), validate=True).hex()
    return None


def _known(wanted: Wanted) -> tuple[_Part, int]:
    """What is known about an earlier try, and how many of its bytes are there."""
    try:
        known = _Part(**storage.read_json(_state_path(wanted.path)))
    except (FileNotFoundError, CorruptFile, TypeError):
        known = _Part(url="")
    have = part_size(wanted.path)
    if known.url != wanted.url or (known.size is not None and have > known.size):
        _drop(wanted.path)
        return _Part(url=wanted.url), 0
    return known, have


def _same(part: _Part, response: httpx2.Response) -> bool:
    etag, total = _strong(response.headers.get("ETag")), _total(response)
    return (etag is None or part.etag is None or etag == part.etag) and (
        total is None or part.size is None or total == part.size
    )


def _strong(etag: str | None) -> str | None:
    """Weak tags say that files are alike, not that their bytes are equal."""
    return None if etag is None or etag.startswith("W/") else etag


def _length(response: httpx2.Response) -> int | None:
    value = response.headers.get("Content-Length", "")
    return int(value) if value.isdigit() else None


def _start(response: httpx2.Response) -> int | None:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found.group(1)) if found else None


def _total(response: httpx2.Response) -> int | None:
    found = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
    return int(found.group(1)) if found else None


def _refuse_downgrade(response: httpx2.Response) -> None:
    urls = [each.url for each in (*response.history, response)]
    if urls[0].scheme == "https" and any(url.scheme != "https" for url in urls):
        raise DownloadFailed(f"{urls[0]} redirects to {urls[-1]}, which is not encrypted")


def _wait(error: _Again, idle: int, config: DownloadConfig) -> float:
    if error.wait_s is not None:
        return error.wait_s
    return wait_before(idle + 1, config.first_wait_s, config.longest_wait_s)


def _given_up(wanted: Wanted, error: _Again, wait: float, idle: int) -> str:
    have = part_size(wanted.path)
    why = f"it asks to wait {wait:,.0f} s; " if idle == 0 or error.wait_s is not None else ""
    return (
        f"{wanted.url} could not be fetched: {error}; {why}tried {max(idle, 1)} times in a row "
        f"without anything new. The {have:,} bytes that came are kept: run it again to go on"
    )


def _drop(path: Path) -> None:
    _part_path(path).unlink(missing_ok=True)
    _state_path(path).unlink(missing_ok=True)


def _part_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _state_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.part.json")


def part_size(path: Path) -> int:
    """Bytes of a file that an earlier try left behind."""
    try:
        return _part_path(path).stat().st_size
    except FileNotFoundError:
        return 0


def _require_room(path: Path, size: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if size + SPARE_BYTES > free:
        raise StorageError(
            f"{path.name} needs {size:,} more bytes, {path.parent} has room for {free:,}; "
            "make room and run it again"
        )


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time writes a part."""
    lock = path.with_name(f".{path.name}.lock")
    busy = DownloadFailed(f"another process is fetching {path} right now; wait for it")
    with storage.only_one(lock, busy):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
