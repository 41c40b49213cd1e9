"""Run a function over many pieces of work in other processes, in order, a few pieces ahead.

For what keeps a processor busy but touches no weights: decoding pictures, tokenizing words.
"""

import multiprocessing
import os
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from utgrec.errors import WorkerDied

T = TypeVar("T")
R = TypeVar("R")

_work: Callable[[Any], Any] | None = None


def in_workers(function: Callable[[T], R], pieces: Iterable[T], workers: int) -> Iterator[R]:
    """`function` of every piece, in order, at most two pieces per worker ahead of the caller.

    The function and what it holds reach the workers by fork, so they need not be picklable; what
    it takes and returns must be. Without workers, or where processes cannot be forked safely
    (Windows, macOS), it runs in the caller's process.

    Raises:
        WorkerDied: a worker was killed, most often for its memory.
    """
    if workers == 0 or sys.platform != "linux":
        yield from map(function, pieces)
        return
    waiting: deque[Future[R]] = deque()
    source = iter(pieces)
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("fork"), initializer=_start, initargs=(function,)
    )
    try:
        for piece in source:
            with warnings.catch_warnings():
                # Forking beside threads is safe here: workers call neither torch's thread pool nor
                # anything that the parent's threads may have locked.
                warnings.simplefilter("ignore", DeprecationWarning)
                waiting.append(pool.submit(_run, piece))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise WorkerDied(
            "a process that reads items ended before it was done, most often for lack of memory; "
            "what is computed is kept: use fewer workers, or smaller pictures, and run it again"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start(function: Callable[[Any], Any]) -> None:
    import torch

    global _work
    _work = function
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one worker, one thread
    torch.set_num_threads(1)


def _run(piece: Any) -> Any:
    assert _work is not None
    return _work(piece)
