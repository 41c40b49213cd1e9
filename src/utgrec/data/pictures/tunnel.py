"""A connection through a proxy to an address that was checked here: the proxy resolves nothing."""

import ssl
from collections.abc import Awaitable, Callable

import httpcore2

from utgrec.data.web import Proxy

LONGEST_ANSWER = 16 * 1024  # bytes of what a proxy says before the connection is through

Connect = Callable[[str, int], Awaitable[httpcore2.AsyncNetworkStream]]


async def through(
    proxy: Proxy,
    host: str,
    port: int,
    connect: Connect,
    context: ssl.SSLContext,
    timeout: float | None,
) -> httpcore2.AsyncNetworkStream:
    """Ask a proxy for a connection; `connect` makes the one to the proxy itself.

    Raises:
        httpcore2.ConnectError, httpcore2.TimeoutException: it cannot be reached, or refuses.
    """
    stream = await connect(proxy.host, proxy.port)
    try:
        if proxy.scheme == "https":
            stream = await stream.start_tls(context, proxy.host, timeout)
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if proxy.authorization:
            lines.append(f"Proxy-Authorization: {proxy.authorization}")
        await stream.write("\r\n".join([*lines, "", ""]).encode("ascii"), timeout)
        answer = b""
        # One byte at a time at the end would be exact; a server never speaks first in HTTP or TLS.
        while b"\r\n\r\n" not in answer:
            more = await stream.read(4096, timeout)
            answer += more
            if not more or len(answer) > LONGEST_ANSWER:
                raise httpcore2.ConnectError(f"the proxy {proxy.host} gives no answer of HTTP")
        status = answer.split(b"\r\n", 1)[0].split(b" ")
        if len(status) < 2 or not status[1].startswith(b"2"):
            said = b" ".join(status[1:]).decode("latin-1")[:60]
            raise httpcore2.ConnectError(f"the proxy {proxy.host} answers {said!r} for {target}")
    except BaseException:
        await stream.aclose()
        raise
    return stream
