"""Work in several threads, each computing alone.

A processor does many small matrix products faster if every core takes its own than if all cores
share each one: threads that share an operation wait for each other after it, thousands of times,
and on a busy machine each time for one that is not running.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")


def in_threads(work: Callable[[Part], None], parts: Sequence[Part], threads: int) -> None:
    """Do `work` on every part, at most `threads` at a time, in this thread if that is one.

    Inside, torch's operations use one thread each. The first error is raised, after all have ended.
    """
    if min(threads, len(parts)) <= 1:
        for part in parts:
            work(part)
        return
    inference = torch.is_inference_mode_enabled()

    def do(part: Part) -> None:
        with torch.inference_mode(inference):  # each thread has a mode of its own
            work(part)

    with (
        _one_thread_each(),
        ThreadPoolExecutor(
            min(threads, len(parts)), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool,
    ):
        for done in [pool.submit(do, part) for part in parts]:
            done.result()


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Torch's number of threads is one meanwhile; it belongs in part to the whole process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
