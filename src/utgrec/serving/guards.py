"""What every request passes before the application sees it, and every answer afterwards.

A number for each request, one log line without the caller's data, limits on the body, and on a
server without keys a check that nobody was lured here by a web page under another name.
"""

import asyncio
import logging
import secrets
import time
import traceback
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from utgrec.errors import FieldError
from utgrec.serving.metrics import METHODS, Metrics
from utgrec.serving.problems import problem
from utgrec.serving.service import ServiceConfig

log = logging.getLogger("utgrec.serving.access")
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
UNMATCHED = "unmatched"
JSON = b"application/json"
MOST_HEAD_BYTES = 32 * 1024  # of the address and all headers together


class Guard:
    """The outermost layer of the server."""

    def __init__(
        self, app: ASGIApp, *, config: ServiceConfig, metrics: Metrics, only_local_names: bool
    ) -> None:
        """`only_local_names`: refuse requests that were addressed to any other host name.

        A page on the web can let its own name point to this machine; its requests then come from
        the user's browser. They carry that name.
        """
        self._app = app
        self._config = config
        self._metrics = metrics
        self._only_local_names = only_local_names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; anything but HTTP goes through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        number, started = secrets.token_hex(8), time.monotonic()
        status: int | None = None
        method = scope["method"] if scope["method"] in METHODS else "other"
        if method == "HEAD":  # what GET would say, without its body
            scope = {**scope, "method": "GET"}

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", []),
                    (b"x-request-id", number.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            elif method == "HEAD":
                message["body"] = b""
            await send(message)

        error: Exception | None = None
        try:
            await self._handle(scope, receive, note)
        except Exception as caught:
            error = caught
            if status is None:
                detail = f"the server could not answer; its log has more under {number}"
                await problem(500, "internal", detail)(scope, receive, note)
        seconds = time.monotonic() - started
        route = getattr(scope.get("route"), "path", UNMATCHED)
        self._metrics.on_answer(method, route, status or 500, seconds)
        facts: dict[str, Any] = {
            "id": number,
            "method": method,
            "route": route,
            "status": status or 500,
            "ms": round(seconds * 1000, 1),
        }
        if error is not None:
            facts |= error_facts(error)
        log.log(logging.INFO if error is None else logging.ERROR, "request", extra={"facts": facts})

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = len(scope.get("raw_path") or b"") + len(scope["query_string"])
        head += sum(len(name) + len(value) for name, value in scope["headers"])
        if head > MOST_HEAD_BYTES:
            rule = f"have at most {MOST_HEAD_BYTES:,} bytes"
            detail = f"the address and the headers have {head:,} bytes; they {rule}"
            large = FieldError("header", f"{head:,} bytes with the address", rule)
            await problem(431, "headers-too-large", detail, errors=[large])(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if self._only_local_names and name not in LOCAL_NAMES:
            names = ", ".join(sorted(LOCAL_NAMES))
            answer = problem(
                421,
                "wrong-host",
                "a server without keys answers requests to localhost only; start it with --keys "
                "to reach it under another name",
                errors=[FieldError.of("header.host", host, f"is one of {names}, with any port")],
            )
            await answer(scope, receive, send)
            return
        limit = self._config.max_body_bytes
        announced = headers.get(b"content-length", b"0")
        body = None
        if not announced.isdigit() or int(announced) <= limit:
            try:
                async with asyncio.timeout(self._config.body_timeout_s):
                    body = await _read(receive, limit)
            except TimeoutError:
                within = f"in {self._config.body_timeout_s:g} s"
                late = FieldError("body", "a part of it", f"arrives {within}")
                answer = problem(
                    408, "slow-body", f"the body did not arrive {within}", errors=[late]
                )
                await answer(scope, receive, send)
                return
        if body is None:
            detail = (
                f"the body is larger than {limit:,} bytes; send fewer or smaller things at once"
            )
            large = FieldError("body", f"over {limit:,} bytes", f"has at most {limit:,} bytes")
            await problem(413, "body-too-large", detail, errors=[large])(scope, receive, send)
            return
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if body and scope["method"] == "POST" and kind != JSON:
            shown = kind.decode("latin-1")[:100]
            detail = f"the body is {shown or 'of no stated type'}; send application/json"
            other = FieldError.of("header.content-type", shown, "is application/json")
            answer = problem(415, "unsupported-media-type", detail, errors=[other])
            await answer(scope, receive, send)
            return
        await self._app(scope, _again(body, receive), send)


async def _read(receive: Receive, limit: int) -> bytes | None:
    """The whole body; None if it is larger than allowed."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":  # the caller has left
            return b"".join(parts)
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def error_facts(error: BaseException) -> dict[str, Any]:
    """What a log says of an error: its kind and where it was. Messages hold the caller's data."""
    frames = traceback.extract_tb(error.__traceback__)
    at = [f"{frame.filename}:{frame.lineno}" for frame in frames[-5:]]
    return {"error": type(error).__name__, "at": at}


def _again(body: bytes, receive: Receive) -> Receive:
    """Give the body once, then what comes after it."""
    given = False

    async def once() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return once
