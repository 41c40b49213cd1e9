"""Ask the hosts: many downloads at a time, decoding beside them, a result for every address."""

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from utgrec.data.pictures.decoders import Decoders
from utgrec.data.pictures.download import Body, Pause, download
from utgrec.data.pictures.hosts import FIRST_WAIT_S, Host, Hosts, Job
from utgrec.data.pictures.network import Edge
from utgrec.data.pictures.options import ImageOptions
from utgrec.data.pictures.outcomes import TEMPORARY, Result, failed
from utgrec.data.web import wait_before
from utgrec.errors import StorageError

Record = Callable[[str, Result], None]

WAITING_FOR_DECODERS = 16  # fetched pictures that wait for each decoding process


class Crawl:
    """One run over many addresses. Every one is given to `record` exactly once."""

    def __init__(
        self, options: ImageOptions, decoders: Decoders, spool: Path, record: Record, edge: Edge
    ) -> None:
        self._options = options
        self._decoders = decoders
        self._spool = spool
        self._record = record
        self._edge = edge
        self._room = asyncio.Semaphore(WAITING_FOR_DECODERS * decoders.workers)
        self._hosts: Hosts
        self._group: asyncio.TaskGroup

    async def run(self, jobs: Iterable[Job]) -> None:
        """Fetch all of them.

        Raises:
            StorageError: a file cannot be written (a full disk); what was recorded stays right.
        """
        self._hosts = Hosts(jobs, self._options, self._edge)
        count = min(self._options.connections, self._hosts.slot_count)
        try:
            async with asyncio.TaskGroup() as self._group:
                for _ in range(count):
                    self._group.create_task(self._work())
        except* StorageError as group:
            raise _first(group) from None
        finally:
            await self._hosts.close()

    async def _work(self) -> None:
        """Take one slot after the other until none is left."""
        loop = asyncio.get_running_loop()
        while (found := self._hosts.next_slot()) is not None:
            ready, host = found
            if ready > loop.time():
                await asyncio.sleep(ready - loop.time())
            ready = 0.0
            if host.given_up is not None:
                await self._give_up(host, host.given_up)
            elif host.jobs:
                job = host.jobs.popleft()
                got = await download(job.target, self._hosts.visit, self._options, self._spool)
                ready = await self._settle(host, job, got)
            self._hosts.free_slot(host, ready)

    async def _give_up(self, host: Host, result: Result) -> None:
        while host.jobs:
            self._record(host.jobs.popleft().url, result)
            await asyncio.sleep(0)

    async def _settle(self, host: Host, job: Job, got: Body | Pause | Result) -> float:
        """Record what came of a try, or put the job back; from when its slot may be used."""
        if isinstance(got, Body):
            self._hosts.judge(host, None)
            await self._room.acquire()
            self._group.create_task(self._decode(job, got))
            return 0.0
        asked = got.seconds if isinstance(got, Pause) else None
        result = got.result if isinstance(got, Pause) else got
        self._hosts.judge(host, result)
        if asked is not None and asked > self._options.max_wait_s:
            detail = f"asks to wait {asked:,.0f} s"
            host.given_up = host.given_up or failed("busy", detail)
            result = result._replace(detail=detail)
        again = result.outcome in TEMPORARY and job.attempt < self._options.attempts
        if not again or host.given_up is not None:
            self._record(job.url, result)
            return 0.0
        longest = self._options.max_wait_s
        wait = wait_before(job.attempt, FIRST_WAIT_S, longest) if asked is None else asked
        if isinstance(got, Pause):
            self._hosts.rest(host, wait)
        host.jobs.append(job._replace(attempt=job.attempt + 1))
        return asyncio.get_running_loop().time() + wait

    async def _decode(self, job: Job, body: Body) -> None:
        try:
            self._record(job.url, await self._decoders.decode(body))
        finally:
            self._room.release()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first plain error of a group of groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class Pace:
    """Counts for the progress: how much, how fast."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.bytes = 0
        self.stored = 0
        self.failed = 0

    def add(self, result: Result) -> None:
        """One more address is settled."""
        self.bytes += result.source_size
        if result.digest:
            self.stored += 1
        else:
            self.failed += 1

    def note(self) -> str:
        """What a person sees beside the count."""
        rate = self.bytes / 2**20 / max(time.monotonic() - self.started, 1e-9)
        return f"{rate:,.1f} MiB/s" + (
            f", {self.failed:,} without a picture" if self.failed else ""
        )
