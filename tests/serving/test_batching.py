"""Requests that come together are answered together, in order, soon, or refused at once."""

import asyncio
import threading
import time
from types import SimpleNamespace

import pytest

from utgrec.errors import BadConfig, Overloaded
from utgrec.serving import batching
from utgrec.serving.batching import Batcher, BatchingConfig


class Searcher:
    """Answers n with -n; remembers its batches, and can be held up."""

    def __init__(self):
        self.batches = []
        self.go = threading.Event()
        self.go.set()
        self.began = threading.Event()

    def __call__(self, asks):
        self.began.set()
        self.batches.append(list(asks))
        assert self.go.wait(10)
        if "bad" in asks:
            raise RuntimeError("broken")
        return [-ask for ask in asks]


def run(scenario, **config):
    """Run a coroutine function with a started batcher and its searcher."""

    async def main():
        searcher = Searcher()
        batcher = Batcher(searcher, BatchingConfig(**config))
        batcher.start()
        try:
            return await asyncio.wait_for(scenario(batcher, searcher), 20)
        finally:
            searcher.go.set()
            await batcher.drain()

    return asyncio.run(main())


def test_everybody_gets_their_own_answers():
    async def scenario(batcher, searcher):
        asks = [[n, n + 100][: 1 + n % 2] for n in range(1, 50)]
        replies = await asyncio.gather(*(batcher.ask(ask) for ask in asks))
        assert replies == [[-n for n in ask] for ask in asks]
        assert sorted(n for batch in searcher.batches for n in batch) == sorted(
            n for ask in asks for n in ask
        )
        assert len(searcher.batches) < 30  # they were put together
        assert max(map(len, searcher.batches)) <= 8

    run(scenario, most_together=8)


def test_one_alone_waits_no_longer_than_the_bound():
    async def scenario(batcher, searcher):
        started = time.monotonic()
        assert await batcher.ask([1]) == [-1]
        assert 0.05 <= time.monotonic() - started < 5

    run(scenario, wait_ms=50)


def test_while_a_search_runs_the_next_ones_gather():
    async def scenario(batcher, searcher):
        searcher.go.clear()
        first = asyncio.create_task(batcher.ask([1]))
        await asyncio.to_thread(searcher.began.wait, 10)
        later = [asyncio.create_task(batcher.ask([n])) for n in range(2, 9)]
        await asyncio.sleep(0.01)
        assert batcher.waiting == 7
        searcher.go.set()
        await asyncio.gather(first, *later)
        assert [sorted(batch) for batch in searcher.batches] == [[1], [2, 3, 4, 5, 6, 7, 8]]

    run(scenario, wait_ms=0)


def test_a_full_line_refuses_at_once_and_recovers():
    async def scenario(batcher, searcher):
        searcher.go.clear()
        first = asyncio.create_task(batcher.ask([1]))
        await asyncio.to_thread(searcher.began.wait, 10)
        waiting = [asyncio.create_task(batcher.ask([n, n])) for n in (2, 3)]
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded, match="4 histories are in line, with these 2 more than 5"):
            await batcher.ask([8, 9])
        fits = asyncio.create_task(batcher.ask([4]))
        searcher.go.set()
        assert await asyncio.gather(first, *waiting, fits) == [[-1], [-2, -2], [-3, -3], [-4]]
        assert await batcher.ask([8, 9]) == [-8, -9]

    run(scenario, most_waiting=5)


def test_what_would_come_too_late_is_refused(monkeypatch):
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)  # a machine may be slow
    monkeypatch.setattr(batching, "time", clock)

    async def scenario(batcher, searcher):
        searcher.go.clear()
        slow = asyncio.create_task(batcher.ask([1]))
        await asyncio.to_thread(searcher.began.wait, 10)
        clock.now = 0.1
        searcher.go.set()
        await slow  # so a search takes a tenth of a second
        searcher.go.clear()
        searcher.began.clear()
        first = asyncio.create_task(batcher.ask([2]))
        await asyncio.to_thread(searcher.began.wait, 10)
        second = asyncio.create_task(batcher.ask([3]))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match=r"would wait about 0\.2 s, more than 0\.15") as error:
            await batcher.ask([4])
        assert error.value.retry_after_s == 1
        searcher.go.set()
        assert await asyncio.gather(first, second) == [[-2], [-3]]

    run(scenario, most_together=1, longest_wait_s=0.15)


def test_an_idle_server_takes_a_request_of_any_size():
    async def scenario(batcher, searcher):
        assert len(await batcher.ask(list(range(20)))) == 20

    run(scenario, most_waiting=5, most_together=3)


def test_an_error_reaches_those_it_concerns_and_nobody_else():
    async def scenario(batcher, searcher):
        with pytest.raises(RuntimeError, match="broken"):
            await batcher.ask(["bad"])
        assert await batcher.ask([3]) == [-3]

    run(scenario)


def test_who_has_left_is_not_searched_for():
    async def scenario(batcher, searcher):
        searcher.go.clear()
        first = asyncio.create_task(batcher.ask([1]))
        await asyncio.to_thread(searcher.began.wait, 10)
        left = asyncio.create_task(batcher.ask([2]))
        stays = asyncio.create_task(batcher.ask([3]))
        await asyncio.sleep(0.01)
        left.cancel()
        searcher.go.set()
        assert await asyncio.gather(first, stays) == [[-1], [-3]]
        assert searcher.batches == [[1], [3]]
        assert batcher.waiting == 0

    run(scenario)


def test_draining_answers_what_is_in_line_and_refuses_the_rest():
    async def scenario(batcher, searcher):
        searcher.go.clear()
        tasks = [asyncio.create_task(batcher.ask([n])) for n in range(1, 5)]
        await asyncio.to_thread(searcher.began.wait, 10)
        drained = asyncio.create_task(batcher.drain())
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded, match="about to stop"):
            await batcher.ask([9])
        assert not drained.done()
        searcher.go.set()
        await drained
        assert [task.result() for task in tasks] == [[-1], [-2], [-3], [-4]]

    run(scenario)


@pytest.mark.parametrize(
    ("name", "value"),
    [("most_together", 0), ("wait_ms", -1.0), ("most_waiting", 0), ("longest_wait_s", 0.0)],
)
def test_settings_outside_their_range(name, value):
    with pytest.raises(BadConfig, match=f"{name} is (at least|above) "):
        BatchingConfig(**{name: value})
