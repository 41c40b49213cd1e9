"""Fetch the bytes behind one address: redirects by hand, every limit kept while it streams."""

import asyncio
import contextlib
import logging
import ssl
import tempfile
import time
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import IO, NamedTuple, cast

import httpcore2

import utgrec
from utgrec.data.pictures.addresses import Target, read_target
from utgrec.data.pictures.journal import writing
from utgrec.data.pictures.network import HostConnections, RefusedAddress, UnknownHost
from utgrec.data.pictures.options import ImageOptions
from utgrec.data.pictures.outcomes import Result, failed
from utgrec.data.web import retry_after
from utgrec.errors import StorageError

STEP = 64 * 1024  # bytes decompressed at a time
IN_MEMORY = 256 * 1024  # bytes of a body that stay in memory; more goes to a temporary file
_log = logging.getLogger(__name__)

REDIRECTS = (301, 302, 303, 307, 308)
HEADERS = {
    "User-Agent": f"utgrec/{utgrec.__version__} (pictures of a catalogue)",
    "Accept": "image/jpeg,image/png,image/webp,image/*;q=0.8",
    "Accept-Encoding": "identity",
}


class Body(NamedTuple):
    """What was fetched."""

    data: bytes | Path  # a path if it is large
    size: int
    final_url: str = ""  # after redirects

    def discard(self) -> None:
        """Remove the temporary file, if there is one."""
        if isinstance(self.data, Path):
            self.data.unlink(missing_ok=True)


class Pause(NamedTuple):
    """A host asks to be left alone."""

    seconds: float | None  # None = it did not say for how long
    result: Result


# The connections to the host of a target, while they may be used.
Visit = Callable[[Target], AbstractAsyncContextManager[HostConnections]]


async def download(
    target: Target, visit: Visit, options: ImageOptions, spool: Path
) -> Body | Pause | Result:
    """Fetch one address.

    Raises:
        StorageError: a large body cannot be written to `spool`.
    """
    try:
        return await _follow(target, visit, options, spool)
    except httpcore2.TimeoutException as error:
        return failed("timeout", type(error).__name__.removesuffix("Timeout").lower())
    except TimeoutError:
        return failed("timeout", f"not finished after {options.timeout_s:g} s")
    except RefusedAddress as error:
        return failed("private address", str(error))
    except UnknownHost as error:
        return failed("unknown host", str(error))
    except httpcore2.ConnectError as error:
        return _not_connected(error)
    except httpcore2.RemoteProtocolError as error:
        # h11: "peer closed connection without sending complete message body", "Server
        # disconnected without sending a response".
        lost = "without sending" in str(error)
        return failed("connection lost" if lost else "bad response", str(error))
    except (httpcore2.LocalProtocolError, httpcore2.UnsupportedProtocol) as error:
        return failed("bad address", str(error))
    except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as error:
        return failed("connection lost", str(error) or type(error).__name__)
    except StorageError:
        raise
    except Exception as error:  # one strange host must not end a run over thousands
        _log.warning("%s: unexpected error", target.url, exc_info=error)
        return failed("bad response", f"{type(error).__name__}: {error}")


async def _follow(
    target: Target, visit: Visit, options: ImageOptions, spool: Path
) -> Body | Pause | Result:
    start, left = target.url, options.timeout_s
    clock = asyncio.get_running_loop().time
    for _ in range(options.max_redirects + 1):
        async with visit(target) as connections:
            began = clock()  # waiting for a free connection is not the host's fault
            request = _request(target, options)
            async with asyncio.timeout(left), connections.ask(request) as response:
                got = await _answer(response, target, options, spool)
            left -= clock() - began
        if not isinstance(got, Target):
            if isinstance(got, Body) and target.url != start:
                return got._replace(final_url=target.url)
            return got
        target = got
    return failed("too many redirects", f"more than {options.max_redirects}")


async def _answer(
    response: httpcore2.Response, target: Target, options: ImageOptions, spool: Path
) -> Target | Body | Pause | Result:
    """The body of an answer, or where it redirects to."""
    if response.status in REDIRECTS:
        where = _header(response, b"location")
        if not where:
            return failed("bad redirect", f"{response.status} without a Location")
        return read_target(where, base=target.url)
    return _refusal(response, options) or await _read(response, options, spool)


def _request(target: Target, options: ImageOptions) -> httpcore2.Request:
    timeouts = {"connect": options.connect_timeout_s, "read": options.read_timeout_s}
    return httpcore2.Request(
        "GET",
        httpcore2.URL(
            scheme=target.scheme.encode(),
            host=target.host.encode(),
            port=target.port,
            target=target.path.encode(),
        ),
        headers=[("Host", target.authority), *HEADERS.items()],
        extensions={"timeout": {**timeouts, "write": options.read_timeout_s}},
    )


def _refusal(response: httpcore2.Response, options: ImageOptions) -> Pause | Result | None:
    """What the status and the headers say against reading on; None if nothing."""
    status = response.status
    if status in (429, 503):
        asked = retry_after(_header(response, b"retry-after"), time.time())
        return Pause(asked, failed("busy", str(status)))
    if status in (404, 410):
        return failed("not found", str(status))
    if status in (401, 402, 403, 407, 451):
        return failed("not allowed", str(status))
    if status == 408:
        return failed("timeout", "408")
    if status >= 500:
        return failed("server error", str(status))
    if status != 200:
        return failed("refused", str(status))
    length = _header(response, b"content-length")
    if length.isdigit() and int(length) > options.max_bytes:
        return failed("too many bytes", f"{int(length):,} announced")
    return None


async def _read(response: httpcore2.Response, options: ImageOptions, spool: Path) -> Body | Result:
    encoding = _header(response, b"content-encoding").strip().lower()
    chunks = cast(AsyncIterator[bytes], response.aiter_stream())
    if encoding in ("gzip", "x-gzip", "deflate"):
        chunks = _inflated(chunks)
    elif encoding not in ("", "identity"):
        return failed("bad response", f"encoded as {encoding[:40]!r}, which was not asked for")
    sink = _Sink(spool)
    try:
        async for chunk in chunks:
            if sink.size + len(chunk) > options.max_bytes:
                return failed("too many bytes", f"more than {options.max_bytes:,}")
            sink.write(chunk)
        return sink.finish()
    except zlib.error as error:
        return failed("broken picture", f"damaged compression ({error})")
    finally:
        sink.close()


class _Sink:
    """Collects a body: in memory while it is small, in a file of `spool` once it is not."""

    def __init__(self, spool: Path) -> None:
        self.size = 0
        self._spool = spool
        self._small = bytearray()
        self._file: IO[bytes] | None = None

    def write(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self._small += chunk
        if self.size > IN_MEMORY:
            with writing(self._spool):
                if self._file is None:
                    self._file = tempfile.NamedTemporaryFile(dir=self._spool, delete=False)  # noqa: SIM115
                self._file.write(self._small)
            self._small.clear()

    def finish(self) -> Body:
        """The body; from now on its file belongs to whoever has it."""
        if self._file is None:
            return Body(bytes(self._small), self.size)
        with writing(self._spool):
            self._file.close()
        path, self._file = Path(self._file.name), None
        return Body(path, self.size)

    def close(self) -> None:
        """Remove what was not handed over."""
        if self._file is not None:
            Path(self._file.name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # a full disk may refuse what is still buffered
                self._file.close()


async def _inflated(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Decompressed chunks; a small answer that would become huge is never held as a whole."""
    inflater = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)  # gzip or zlib, by its first bytes
    async for chunk in chunks:
        rest = chunk
        while rest:
            yield inflater.decompress(rest, STEP)
            rest = inflater.unconsumed_tail
    yield inflater.flush(STEP)
    if not inflater.eof:
        raise zlib.error("it ends too early")


def _not_connected(error: httpcore2.ConnectError) -> Result:
    # httpcore puts the error it maps into `args`.
    cause = error.args[0] if error.args else None
    if isinstance(cause, ssl.SSLCertVerificationError):
        return failed("bad certificate", cause.verify_message)
    return failed("connection failed", str(error))


def _header(response: httpcore2.Response, name: bytes) -> str:
    """The first header of that name, or an empty text."""
    for key, value in response.headers:
        if key.lower() == name:
            return value.decode("latin-1")
    return ""
