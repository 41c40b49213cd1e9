"""Time several ways of doing something in turn, in one process."""

import statistics
import time
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar

import torch

Name = TypeVar("Name", bound=Hashable)


class Way(NamedTuple):
    """Something that is timed: a call that serves some users."""

    call: Callable[[], Any]
    users: int


class Taken(NamedTuple):
    """Median seconds of a call: by the clock, and by the processor."""

    wall: float
    cpu: float


def take_turns(ways: dict[Name, Way], repeats: int, device: str) -> dict[Name, Taken]:
    """Time all ways in turn; each has one call before that does not count."""
    seconds: dict[Name, list[Taken]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, way in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            way.call()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(Taken(time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: Taken(*(statistics.median(column) for column in zip(*every[1:], strict=True)))
        for name, every in seconds.items()
    }
