"""Processes that decode: all processors at work, and a picture that kills one costs only itself."""

import asyncio
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

from utgrec.data.pictures.decode import begin, store_picture
from utgrec.data.pictures.download import Body
from utgrec.data.pictures.journal import writing
from utgrec.data.pictures.outcomes import Result, failed

MOST_WORKERS = 16


class Decoders:
    """A pool of decoding processes. Use it as a context manager."""

    def __init__(self, store: Path, *, workers: int, max_pixels: int, max_side: int) -> None:
        self.workers = workers or min(os.cpu_count() or 1, MOST_WORKERS)
        self._store = store
        self._call = partial(store_picture, store=store, max_pixels=max_pixels, max_side=max_side)
        self._pool = _new_pool(self.workers)
        self._alone = asyncio.Lock()

    def __enter__(self) -> "Decoders":
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def decode(self, body: Body) -> Result:
        """Store one fetched picture.

        Raises:
            StorageError: the store cannot be written.
        """
        pool = self._pool
        try:
            result = await self._run(pool, body)
        except BrokenProcessPool:
            # One of the pictures that were being decoded did it. Each gets a process of its own.
            if self._pool is pool:
                self._pool = _new_pool(self.workers)
            async with self._alone:
                result = await self._decode_alone(body)
        finally:
            body.discard()
        return result._replace(final_url=body.final_url, source_size=body.size)

    async def _decode_alone(self, body: Body) -> Result:
        with _new_pool(1) as pool:
            try:
                return await self._run(pool, body)
            except BrokenProcessPool:
                return failed("crashes the decoder")

    async def _run(self, pool: ProcessPoolExecutor, body: Body) -> Result:
        with writing(self._store):
            return await asyncio.get_running_loop().run_in_executor(pool, self._call, body.data)


def _new_pool(workers: int) -> ProcessPoolExecutor:
    # "spawn": a fork of a process with threads may stand still for ever.
    return ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=begin
    )
