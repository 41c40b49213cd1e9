"""Through a proxy: only where told, and to the address that was checked, never to a name."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import pytest
from picture_shops import outcomes_of, rows_of, write_pictured
from picture_web import Reply, edge_names, picture, serving

from utgrec.data.pictures.fetch import fetch_images
from utgrec.data.pictures.network import Edge
from utgrec.data.pictures.options import ImageOptions

PUBLIC = "93.184.216.34"


class ProxyServer:
    """Notes what it is asked for, and connects everybody to one server."""

    def __init__(self, port: int, answer: bytes = b"HTTP/1.1 200 Connected\r\n\r\n") -> None:
        self.asked: list[str] = []
        self.headers: list[str] = []
        self._to, self._answer = port, answer
        self._ready = threading.Event()

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()))
        thread.start()
        assert self._ready.wait(10)
        yield f"http://user:secret@127.0.0.1:{self._port}"
        self._loop.call_soon_threadsafe(self._stop.set)
        thread.join(10)
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            self.asked.append(head[0])
            self.headers += head[1:]
            writer.write(self._answer)
            if self._answer.startswith(b"HTTP/1.1 200"):
                back, out = await asyncio.open_connection("127.0.0.1", self._to)

                async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                    with contextlib.suppress(OSError):
                        while data := await source.read(2**16):
                            sink.write(data)
                        sink.close()

                await asyncio.gather(pump(reader, out), pump(back, writer))
            writer.close()


def edge_of(names: dict[str, list[str]], web: object) -> Edge:
    """Names that the test knows; connections really go where they are told to."""
    resolve, _ = edge_names(names, web)  # type: ignore[arg-type]
    return Edge(resolve=resolve)  # type: ignore[arg-type]


def test_the_proxy_is_asked_for_checked_addresses(tmp_path, monkeypatch):
    names = {"shop.example": [PUBLIC], "inside.example": ["10.1.2.3"]}
    with serving(lambda request: Reply(picture(1))) as web:
        proxy = ProxyServer(web.port)
        with proxy.running() as address:
            monkeypatch.setenv("HTTP_PROXY", address)
            urls = ["http://shop.example/a.jpg", "http://inside.example/a.jpg", "http://127.0.0.1/"]
            folder = write_pictured(tmp_path / "shop", urls)
            options = ImageOptions(attempts=1, workers=1, proxy="env")
            fetch_images(folder, options, edge=edge_of(names, web))
            assert list(outcomes_of(folder).values()) == ["stored", *["private address"] * 2]
            assert proxy.asked == [f"CONNECT {PUBLIC}:80 HTTP/1.1"]
            assert "Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=" in proxy.headers
            assert web.hosts == {"shop.example": 1}  # the name goes to the host itself


def test_without_being_told_no_proxy_is_used(tmp_path, monkeypatch):
    with serving(lambda request: Reply(picture(1))) as web:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        folder = write_pictured(tmp_path / "shop", [web.url("/a.jpg")])
        options = ImageOptions(attempts=1, workers=1, allow_private_addresses=True)
        fetch_images(folder, options)
        assert list(outcomes_of(folder).values()) == ["stored"]


def test_where_private_addresses_are_allowed_the_proxy_resolves(tmp_path):
    with serving(lambda request: Reply(picture(1))) as web:
        proxy = ProxyServer(web.port)
        with proxy.running() as address:
            folder = write_pictured(tmp_path / "shop", ["http://only.the.proxy.knows/a.jpg"])
            options = ImageOptions(
                attempts=1, workers=1, proxy=address, allow_private_addresses=True
            )
            fetch_images(folder, options)
            assert list(outcomes_of(folder).values()) == ["stored"]
            assert proxy.asked == ["CONNECT only.the.proxy.knows:80 HTTP/1.1"]


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (b"HTTP/1.1 407 Who are you\r\n\r\n", "answers '407 Who are you'"),
        (b"SSH-2.0 hello\r\n\r\n", "answers 'hello'"),
        (b"", "gives no answer of HTTP"),
        (b"x" * 20_000, "gives no answer of HTTP"),
    ],
)
def test_a_proxy_that_refuses(tmp_path, answer, detail):
    proxy = ProxyServer(1, answer)
    with proxy.running() as address:
        folder = write_pictured(tmp_path / "shop", ["http://shop.example/a.jpg"])
        options = ImageOptions(attempts=1, workers=1, proxy=address)
        fetch_images(folder, options, edge=edge_of({"shop.example": [PUBLIC]}, None))
        (row,) = rows_of(folder)
        assert row["outcome"] == "connection failed" and detail in row["detail"]
