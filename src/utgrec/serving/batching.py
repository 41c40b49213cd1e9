"""Put requests that arrive at about the same time into one search, within a latency bound.

Requests wait in line for the one thread that searches. While it is busy they gather by themselves;
when it is idle, the first one waits at most `wait_ms` for company. A line that is too long is an
error at once, with the time after which to try again, instead of an answer that comes too late.
"""

import asyncio
import dataclasses
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

from utgrec.config import require
from utgrec.errors import Overloaded
from utgrec.serving.pace import Pace

Ask = TypeVar("Ask")
Reply = TypeVar("Reply")
LONGEST_RETRY_S = 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchingConfig:
    """How requests are gathered."""

    most_together: int = 64
    """Histories searched together."""
    wait_ms: float = 2.0
    """Longest time that a request waits for company (ms)."""
    most_waiting: int = 512
    """Histories in line; more are refused."""
    longest_wait_s: float = 2.0
    """Refuse what would wait longer than this, going by recent searches (s)."""

    def __post_init__(self) -> None:
        require(self.most_together >= 1, f"most_together is at least 1, got {self.most_together}")
        require(self.wait_ms >= 0, f"wait_ms is at least 0, got {self.wait_ms}")
        require(self.most_waiting >= 1, f"most_waiting is at least 1, got {self.most_waiting}")
        require(self.longest_wait_s > 0, f"longest_wait_s is above 0, got {self.longest_wait_s}")


class _Ticket(NamedTuple, Generic[Ask, Reply]):
    """What one caller waits for."""

    asks: Sequence[Ask]
    replies: "asyncio.Future[list[Reply]]"
    since: float  # s


class Batcher(Generic[Ask, Reply]):
    """Lines up requests for one function that answers many at once, in a thread of its own."""

    def __init__(
        self,
        answer: Callable[[Sequence[Ask]], list[Reply]],
        config: BatchingConfig,
        watch: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        """`answer` gives one reply per ask; `watch` is told the size and time of each batch."""
        self._answer = answer
        self._config = config
        self._watch = watch
        self._line: deque[_Ticket[Ask, Reply]] = deque()
        self._waiting = 0
        self._pace = Pace()
        self._searching, self._since = 0, 0.0  # histories of the running search, when it began
        self._news = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._open = False
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="search")

    @property
    def waiting(self) -> int:
        """How many asks are in line."""
        return self._waiting

    def start(self) -> None:
        """Begin to answer; call it inside the event loop."""
        self._open = True
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def drain(self) -> None:
        """Refuse what comes from now on, answer what is in line, and end."""
        self._open = False
        await self._quiet.wait()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown()

    async def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """The replies to some asks, in their order. A caller that is cancelled is not searched for.

        Raises:
            Overloaded: the line is full, or the server is about to end.
        """
        if not self._open:
            raise Overloaded("the server is about to stop; ask another one, or again later", 5)
        self._refuse_if_late(len(asks))
        ticket = _Ticket[Ask, Reply](
            asks, asyncio.get_running_loop().create_future(), time.monotonic()
        )
        self._line.append(ticket)
        self._waiting += len(asks)
        self._quiet.clear()
        self._news.set()
        return await ticket.replies

    def _refuse_if_late(self, count: int) -> None:
        """Raise Overloaded if `count` more would not fit into the line; an empty line takes all."""
        config, waiting = self._config, self._waiting
        if waiting == 0:
            return
        running = self._pace.batch(self._searching) - (time.monotonic() - self._since)
        seconds = max(running, 0.0) if self._searching else 0.0
        seconds += self._pace.line(waiting, config.most_together)
        if waiting + count > config.most_waiting:
            why = f"with these {count} more than {config.most_waiting}"
        elif seconds > config.longest_wait_s:
            why = f"these would wait about {seconds:.1f} s, more than {config.longest_wait_s:g}"
        else:
            return
        raise Overloaded(
            f"{waiting} histories are in line, {why}; try again later",
            Pace.retry_after(seconds, LONGEST_RETRY_S),
        )

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._gather()
            batch = self._take()
            asks = [ask for ticket in batch for ask in ticket.asks]
            if asks:
                self._searching, self._since = len(asks), time.monotonic()
                try:
                    replies = await loop.run_in_executor(self._thread, self._answer, asks)
                except Exception as error:
                    for ticket in batch:
                        if not ticket.replies.done():
                            ticket.replies.set_exception(error)
                else:
                    for ticket in batch:
                        mine, replies = replies[: len(ticket.asks)], replies[len(ticket.asks) :]
                        if not ticket.replies.done():
                            ticket.replies.set_result(mine)
                seconds = time.monotonic() - self._since
                self._searching = 0
                self._pace.note(len(asks), seconds)
                self._watch(len(asks), seconds)
            if not self._line:
                self._quiet.set()

    async def _gather(self) -> None:
        """Wait until there is something to do, and as long as it may wait for company."""
        while not self._line:
            self._news.clear()
            await self._news.wait()
        until = self._line[0].since + self._config.wait_ms / 1000
        while self._waiting < self._config.most_together:
            left = until - time.monotonic()
            if left <= 0 or not self._open:
                return
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), left)
            except TimeoutError:
                return

    def _take(self) -> list[_Ticket[Ask, Reply]]:
        """The next callers in line, at least one of them, without those who have left."""
        batch: list[_Ticket[Ask, Reply]] = []
        size = 0
        while self._line and (
            not batch or size + len(self._line[0].asks) <= self._config.most_together
        ):
            ticket = self._line.popleft()
            self._waiting -= len(ticket.asks)
            if not ticket.replies.done():
                batch.append(ticket)
                size += len(ticket.asks)
        return batch
