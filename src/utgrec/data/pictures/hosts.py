"""Who is asked next: hosts side by side, each with few connections, none asked while it rests.

A *slot* is the right to ask one host once at a time; a host has as many as it may have connections.
Free slots wait in a heap by the time from which they may be used.
"""

import asyncio
import contextlib
import heapq
import itertools
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

from utgrec.data.pictures.addresses import Target
from utgrec.data.pictures.network import (
    CheckedBackend,
    Edge,
    HostConnections,
    default_context,
)
from utgrec.data.pictures.options import ImageOptions
from utgrec.data.pictures.outcomes import Result
from utgrec.data.web import PORTS, Proxies

FIRST_WAIT_S = 0.5  # before a second try; doubled for each further one, then spread
# What says that the host itself is the trouble, not one of its pictures.
UNREACHABLE = ("timeout", "connection failed", "unknown host", "private address", "bad certificate")
FOR_GOOD = ("unknown host", "private address", "bad certificate")  # the rest of it ends alike
FEWEST_FAILURES = 16  # in a row, before a host is given up


class Job(NamedTuple):
    """One address to fetch."""

    url: str  # as the items name it
    target: Target
    attempt: int  # 1 for the first


class Host:
    """One host: what is to be fetched from it, and how it has behaved."""

    def __init__(self, name: str, options: ImageOptions) -> None:
        self.name = name
        self.jobs: deque[Job] = deque()
        self.gate = asyncio.Semaphore(options.per_host)
        self.visitors = 0
        self.connections: HostConnections | None = None
        self.rests_until = 0.0
        self.failures = 0  # in a row
        self.given_up: Result | None = None  # what the rest of its jobs comes to

    async def close(self) -> None:
        """Close all connections to it."""
        connections, self.connections = self.connections, None
        if connections is not None:
            await connections.close()


class Hosts:
    """All hosts of a run."""

    def __init__(self, jobs: Iterable[Job], options: ImageOptions, edge: Edge) -> None:
        self._options = options
        proxies = Proxies(options.proxy) if options.proxy else None
        self._context = edge.ssl_context or default_context()
        self._backends = {
            scheme: CheckedBackend(
                edge._replace(ssl_context=self._context),
                allow_private=options.allow_private_addresses,
                scheme=scheme,
                proxies=proxies,
            )
            for scheme in PORTS
        }
        self._hosts: dict[str, Host] = {}
        for job in jobs:
            self._host(job.target).jobs.append(job)
        self._order = itertools.count()
        self._slots: list[tuple[float, int, Host]] = []
        # First one slot of every host, then a second of those with more to fetch, and so on.
        for number in range(options.per_host):
            hosts = [host for host in self._hosts.values() if len(host.jobs) > number]
            if not hosts:
                break
            self._slots += [(0.0, next(self._order), host) for host in hosts]
        self.slot_count = len(self._slots)

    def next_slot(self) -> tuple[float, Host] | None:
        """The slot that can be used soonest, and from when (the loop's time); None if none is left.

        Slots of hosts with nothing to do are dropped: who puts a job back still holds one.
        """
        while self._slots:
            ready, _, host = heapq.heappop(self._slots)
            if host.jobs:
                return max(ready, host.rests_until), host
        return None

    def free_slot(self, host: Host, ready: float = 0.0) -> None:
        """Give a slot back; it can be used from `ready` on (the loop's time)."""
        heapq.heappush(self._slots, (max(ready, host.rests_until), next(self._order), host))

    @contextlib.asynccontextmanager
    async def visit(self, target: Target) -> AsyncIterator[HostConnections]:
        """The connections to the host of a target, for as many visitors at a time as it may have.

        The last one closes them when there is nothing more to fetch.
        """
        host = self._host(target)
        async with host.gate:
            host.visitors += 1
            if host.connections is None:
                host.connections = HostConnections(self._backends, self._context)
            try:
                yield host.connections
            finally:
                host.visitors -= 1
                if not host.visitors and not host.jobs:
                    await host.close()

    def judge(self, host: Host, result: Result | None) -> None:
        """Note how a request ended (None: with a body); give the host up if it never answers."""
        if result is None or result.outcome not in UNREACHABLE:
            host.failures = 0
            return
        host.failures += 1
        most = max(FEWEST_FAILURES, self._options.per_host)
        if host.failures >= most and host.given_up is None:
            alike = result.outcome in FOR_GOOD
            host.given_up = Result(
                result.outcome if alike else "host given up",
                result.detail if alike else f"{result.outcome}, {host.failures} in a row",
            )

    def rest(self, host: Host, seconds: float) -> None:
        """Ask a host nothing for a while."""
        now = asyncio.get_running_loop().time()
        host.rests_until = max(host.rests_until, now + seconds)

    async def close(self) -> None:
        """Close all connections."""
        for host in self._hosts.values():
            await host.close()

    def _host(self, target: Target) -> Host:
        if target.host not in self._hosts:
            self._hosts[target.host] = Host(target.host, self._options)
        return self._hosts[target.host]
