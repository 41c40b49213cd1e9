"""Connections that only go to public addresses: the address that was checked is the one used.

A name is resolved anew for every connection, every address of the answer is checked, and the
connection is made to the checked address itself. The name still goes into the Host header and into
the TLS handshake, where the certificate must match it. A proxy, where one is told, is asked for
that address too, never for a name.
"""

import asyncio
import contextlib
import select
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple

import httpcore2

from utgrec.data.pictures.addresses import is_public
from utgrec.data.pictures.tunnel import through
from utgrec.data.web import Proxies, certificates

MOST_ADDRESSES = 4  # of one name that are tried
KEEP_S = 15.0  # that a free connection is kept

Resolve = Callable[[str, int], Awaitable[list[str]]]
SocketOption = httpcore2.SOCKET_OPTION


class RefusedAddress(Exception):
    """A host has no public address."""


class UnknownHost(Exception):
    """A name does not exist."""


async def resolve(host: str, port: int) -> list[str]:
    """All network addresses of a host, as the system's resolver gives them."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Edge(NamedTuple):
    """Where the network begins; tests put their own in place."""

    resolve: Resolve = resolve
    backend: httpcore2.AsyncNetworkBackend | None = None  # None = real connections
    ssl_context: ssl.SSLContext | None = None  # None = the system's certificates


def default_context() -> ssl.SSLContext:
    """The certificates of the usual variables, else those that come with the system.

    Raises:
        BadConfig: the variables name what cannot be read.
    """
    return certificates() or httpcore2.default_ssl_context()


class CheckedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to checked addresses only, of hosts asked by one scheme (http or https)."""

    def __init__(
        self,
        edge: Edge,
        *,
        allow_private: bool,
        scheme: str = "https",
        proxies: Proxies | None = None,
    ) -> None:
        self._resolve = edge.resolve
        self._inner = edge.backend or httpcore2.AnyIOBackend()
        self._context = edge.ssl_context or default_context()
        self._allow_private = allow_private
        self._scheme, self._proxies = scheme, proxies

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address of `host` that may be used and answers.

        Raises:
            UnknownHost, RefusedAddress: there is no such address.
        """
        proxy = self._proxies.of(self._scheme, host) if self._proxies is not None else None
        if proxy is not None and self._allow_private:
            addresses = [host]  # the proxy finds out, and decides
        else:
            addresses = await self._addresses(host, port, timeout)

        async def connect(host: str, port: int) -> httpcore2.AsyncNetworkStream:
            return await self._inner.connect_tcp(host, port, timeout, local_address, socket_options)

        problem: Exception | None = None
        for address in addresses:
            try:
                if proxy is None:
                    return QuickStream(await connect(address, port))
                return QuickStream(
                    await through(proxy, address, port, connect, self._context, timeout)
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                problem = error
        assert problem is not None
        raise problem

    async def _addresses(self, host: str, port: int, timeout: float | None) -> list[str]:
        try:
            async with asyncio.timeout(timeout):
                found = await self._resolve(host, port)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(f"resolving {host} takes too long") from error
        except socket.gaierror as error:
            if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None)):
                raise UnknownHost(f"{host} ({error.strerror})") from error
            raise httpcore2.ConnectError(f"{host} cannot be resolved: {error.strerror}") from error
        except (OSError, UnicodeError) as error:  # UnicodeError: a label of more than 63 bytes
            raise UnknownHost(f"{host} ({error})") from error
        if not self._allow_private:
            public = [address for address in found if is_public(address)]
            if found and not public:
                raise RefusedAddress(f"{host} is {', '.join(sorted(found)[:3])}")
            found = public
        if not found:
            raise UnknownHost(f"{host} has no address")
        return found[:MOST_ADDRESSES]

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Never: a web address does not lead to a socket file."""
        raise RefusedAddress(path)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class QuickStream(httpcore2.AsyncNetworkStream):
    """A connection that is quick to say whether something can be read from it.

    That is asked before each use, and the way through the layers below is long.
    """

    def __init__(self, inner: httpcore2.AsyncNetworkStream) -> None:
        self._inner = inner
        self._socket = inner.get_extra_info("socket")
        self._poll = select.poll() if hasattr(select, "poll") and self._socket else None
        if self._poll is not None:
            self._poll.register(self._socket.fileno(), select.POLLIN)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Up to so many bytes; none at the end."""
        return await self._inner.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it."""
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        self._poll = None  # its number may soon be that of another file
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """The same connection, encrypted."""
        return QuickStream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        """What httpcore asks of a connection."""
        if info == "is_readable" and self._poll is not None:
            return self._socket.fileno() < 0 or bool(self._poll.poll(0))
        return self._inner.get_extra_info(info)


class HostConnections:
    """The connections to one host, used again while they are open.

    How many there are at a time is the caller's business. `httpcore2.AsyncConnectionPool` looks at
    all of them before and after each request, which took a fifth of all the time; here the last
    one that became free is taken.
    """

    def __init__(self, backends: Mapping[str, CheckedBackend], context: ssl.SSLContext) -> None:
        """`backends` is scheme → what connects."""
        self._backends = backends
        self._context = context
        self._idle: dict[str, list[httpcore2.AsyncHTTPConnection]] = {}

    @contextlib.asynccontextmanager
    async def ask(self, request: httpcore2.Request) -> AsyncIterator[httpcore2.Response]:
        """Send a request; a body that is not read to its end costs the connection."""
        connection = await self._take(request.url.origin)
        try:
            response = await connection.handle_async_request(request)
            try:
                yield response
            finally:
                await response.aclose()
        finally:
            if connection.is_idle() and not connection.is_closed():
                self._idle.setdefault(str(request.url.origin), []).append(connection)
            else:
                await connection.aclose()

    async def close(self) -> None:
        """Close all that are free."""
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                await connection.aclose()

    async def _take(self, origin: httpcore2.Origin) -> httpcore2.AsyncHTTPConnection:
        idle = self._idle.get(str(origin), [])
        while idle:
            connection = idle.pop()
            if not connection.has_expired():
                return connection
            await connection.aclose()
        return httpcore2.AsyncHTTPConnection(
            origin,
            ssl_context=self._context,
            keepalive_expiry=KEEP_S,
            network_backend=self._backends[origin.scheme.decode()],
        )
