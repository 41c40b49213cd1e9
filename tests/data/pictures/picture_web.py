"""A web server for tests that misbehaves as its paths say, in a thread of this process.

A handler is a function from the request (path, headers) to a `Reply`, or an async function that
writes to the connection itself.
"""

import asyncio
import contextlib
import ssl
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from io import BytesIO
from typing import NamedTuple

import httpcore2
import numpy as np
from PIL import Image


class Reply(NamedTuple):
    """An answer."""

    body: bytes = b""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


class Request(NamedTuple):
    """What was asked."""

    path: str
    headers: dict[str, str]
    writer: asyncio.StreamWriter


Handler = Callable[[Request], "Reply | Awaitable[Reply | None]"]


class Web:
    """A running server. `asked` counts requests by path, `most` is the most at a time."""

    def __init__(self, handler: Handler, context: ssl.SSLContext | None = None) -> None:
        self.asked: Counter[str] = Counter()
        self.hosts: Counter[str] = Counter()
        self.now = 0
        self.most = 0
        self._handler = handler
        self._context = context
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Web":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def url(self, path: str) -> str:
        scheme = "http" if self._context is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(
            self._accept, "127.0.0.1", 0, ssl=self._context, backlog=2000
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._talk(reader, writer)
        writer.close()
        self._tasks.discard(task)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            path = head[0].split(" ")[1]
            headers = dict(line.split(": ", 1) for line in head[1:] if ": " in line)
            self.asked[path] += 1
            self.hosts[headers.get("Host", "")] += 1
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                reply = self._handler(Request(path, headers, writer))
                if not isinstance(reply, Reply):
                    reply = await reply
            finally:
                self.now -= 1
            if reply is None:
                return
            names = {name.lower() for name, _ in reply.headers}
            lines = [f"HTTP/1.1 {reply.status} Whatever"]
            lines += [f"{name}: {value}" for name, value in reply.headers]
            if "content-length" not in names and "transfer-encoding" not in names:
                lines.append(f"Content-Length: {len(reply.body)}")
            writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + reply.body)
            await writer.drain()


def edge_names(names: dict[str, list[str]], web: Web) -> "tuple[object, httpcore2.AnyIOBackend]":
    """A resolver that knows `names`, and connections that all end at `web`."""

    async def resolve(host: str, port: int) -> list[str]:
        found = names.get(host, [host])
        return found.pop(0).split() if len(found) > 1 else found[0].split()

    class ToTheTestServer(httpcore2.AnyIOBackend):
        async def connect_tcp(self, host, port, timeout=None, local_address=None, options=None):
            return await super().connect_tcp("127.0.0.1", web.port, timeout)

    return resolve, ToTheTestServer()


def picture(seed: int = 0, size: tuple[int, int] = (40, 30), kind: str = "JPEG") -> bytes:
    """A picture of noise, different for every seed."""
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = BytesIO()
    Image.fromarray(values).save(stream, kind)
    return stream.getvalue()


@contextlib.contextmanager
def serving(handler: Handler) -> Iterator[Web]:
    """A server for the block."""
    with Web(handler) as web:
        yield web
