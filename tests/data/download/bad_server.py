"""A file server on 127.0.0.1 that misbehaves as it is told, for each request in turn."""

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class BadServer(ThreadingHTTPServer):
    """Serves `files`; `script` holds what goes wrong with the next requests, first one first.

    "drop N": N bytes, then the connection breaks · "hang N": N bytes, then silence ·
    "short": announces more than it sends · "status N" · "status N after S": with Retry-After ·
    "no range": the whole file whatever is asked · "change": the file is another one from now on ·
    "lie": a part that does not start where it was asked to · "ok".
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.script: list[str] = []
        self.headers: dict[str, str] = {}
        self.seen: list[dict[str, Any]] = []
        self.etags = True
        self.ranges = True
        self.chunked = False
        self.busy = self.busiest = 0
        self.lock = threading.Lock()
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections are what this server is for."""


class _Handler(BaseHTTPRequestHandler):
    server: BadServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(head=True)

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.busy += 1
            self.server.busiest = max(self.server.busiest, self.server.busy)
        try:
            self._answer(head=False)
        finally:
            with self.server.lock:
                self.server.busy -= 1

    def _answer(self, head: bool) -> None:
        server = self.server
        with server.lock:
            todo = "ok" if head or not server.script else server.script.pop(0)
            server.seen.append({"path": self.path, "method": self.command, **dict(self.headers)})
        if todo == "change":
            server.files[self.path] = server.files[self.path][::-1] + b"!"
        if self.path.startswith("/loop"):
            return self._redirect(f"/loop{len(server.seen)}")
        if self.path.startswith("/to/"):
            return self._redirect(self.path[3:])
        if self.path == "/nohead" and head:
            return self._empty(405)
        if todo.startswith("status "):
            words = todo.split()
            return self._empty(int(words[1]), words[3] if "after" in words else None)
        data = server.files.get(self.path)
        if data is None:
            return self._empty(404)
        self._send(data, todo, head)

    def _redirect(self, where: str) -> None:
        self.send_response(302)
        self.send_header("Location", where)
        self.send_header("Content-Length", "0")
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _empty(self, status: int, after: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        if after is not None:
            self.send_header("Retry-After", after)
        self.end_headers()

    def _send(self, data: bytes, todo: str, head: bool) -> None:
        server = self.server
        etag = f'"{hashlib.md5(data).hexdigest()}"'
        asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if "If-Range" in self.headers and self.headers["If-Range"] != etag:
            asked = None
        start, end = 0, len(data)
        if asked and server.ranges and todo != "no range":
            start = int(asked[1])
            end = int(asked[2]) + 1 if asked[2] else len(data)
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if todo == "lie":
                start = 0
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        else:
            self.send_response(200)
        body = data[start:end]
        if server.etags:
            self.send_header("ETag", etag)
        for name, value in server.headers.items():
            self.send_header(name, value)
        if server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body) + (7 if todo == "short" else 0)))
        self.end_headers()
        if head:
            return
        if server.chunked:
            body = b"%x\r\n%s\r\n" % (len(body), body) + (b"" if todo == "short" else b"0\r\n\r\n")
        most = int(todo.split()[1]) if todo.startswith(("drop", "hang", "slow")) else len(body)
        if todo.startswith("slow"):
            time.sleep(0.05)
            most = len(body)
        self.wfile.write(body[:most])
        self.wfile.flush()
        if todo.startswith("hang"):
            server.over.wait(20)
        if most < len(body) or todo == "short":
            self.close_connection = True


@contextmanager
def bad_server() -> Iterator[BadServer]:
    server = BadServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()
