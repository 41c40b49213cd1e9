"""Work through large files on a Ray cluster; what comes out is the same as on one machine.

Files that are not zipped are cut into shares of whole lines, which Ray Data hands to whoever is
free; a zipped file is one share. Events come back as they are ready and are kept on the disk of the
machine that asked, where the filters run (`utgrec.data.event_store`). All machines need this
package and must see the files under the same path.
"""

import contextlib
import os
import socket
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from utgrec import storage
from utgrec.data.amazon2023.parts import Done, Machine, Part, Pieces, Work
from utgrec.data.blocks import BlockReader, Range, Told, ranges
from utgrec.errors import BadConfig, MissingDependency, UTGRecError

SHARE_BYTES = 256 * 2**20
CONNECT_TIMEOUT_S = 10.0
BLOCKS = 2**20  # parts of one share, at most

Batch = dict[str, Any]


@contextlib.contextmanager
def ray_machine(address: str | None = None) -> Iterator[Machine]:
    """A cluster to work on: at an address, or None = one on this machine, for as long as needed.

    Raises:
        MissingDependency: Ray is not installed.
        BadConfig: there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _require_reachable(address)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingDependency(
            "preparing on a cluster needs Ray: pip install 'utgrec[ray]'"
        ) from error
    started = not ray.is_initialized()
    if started:
        local: dict[str, Any] = {} if address else {"include_dashboard": False}
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", **local)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise BadConfig(f"there is no Ray cluster at {address!r} ({error})") from error
    context = ray.data.DataContext.get_current()
    before = context.enable_progress_bars
    context.enable_progress_bars = False
    try:
        yield RayMachine()
    finally:
        context.enable_progress_bars = before
        if started:
            ray.shutdown()


def _require_reachable(address: str | None) -> None:
    """Ray itself would try an address for minutes before it says that nobody is there."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon:
        return  # None, auto, local: Ray knows at once
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise BadConfig(f"there is no Ray cluster at {address!r} ({error})") from error


class RayMachine:
    """Shares of a file to the workers of the cluster that this process is connected to."""

    def __init__(self, share_bytes: int = SHARE_BYTES) -> None:
        """Shares have about so many bytes."""
        self._share_bytes = share_bytes

    def over(self, path: Path, work: Work, told: Told) -> Pieces:
        """Parts as they are ready."""
        return _OnRay(path.resolve(), ranges(path, self._share_bytes), work, told)


class _OnRay(Pieces):
    def __init__(self, path: Path, shares: list[Range], work: Work, told: Told) -> None:
        self._path, self._shares, self._work, self._told = path, shares, work, told
        self._lines: dict[int, int] = defaultdict(int)
        self._parts: list[int] = []
        self._digest = ""

    def __iter__(self) -> Iterator[tuple[int, Part]]:
        import ray
        import ray.data

        digest = ray.remote(_hash).remote(str(self._path))
        rows = [{"share": n, "start": a, "end": b} for n, (a, b) in enumerate(self._shares)]
        data = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _worker(str(self._path), self._work), batch_size=1, batch_format="numpy"
        )
        seen: set[int] = set()
        for batch in data.iter_batches(batch_size=1, batch_format="numpy", prefetch_batches=1):
            if batch["error"][0]:
                raise _rebuilt(str(batch["error"][0]), str(batch["message"][0]))
            share, block = int(batch["share"][0]), int(batch["block"][0])
            lines = int(batch["lines"][0])
            self._lines[share] += lines
            number = share * BLOCKS + block
            self._parts.append(number)
            seen.add(share)
            self._told(sum(self._shares[n].end - self._shares[n].start for n in seen))
            yield number, Part(_unpacked(batch["rows"][0]), _unpacked(batch["rejected"][0]), lines)
        self._digest = ray.get(digest)

    def done(self) -> Done:
        starts = np.cumsum([0, *(self._lines[n] for n in range(len(self._shares)))])
        before = {number: int(starts[number // BLOCKS]) for number in self._parts}
        return Done(lines=int(starts[-1]), digest=self._digest, before=before)


def _worker(path: str, work: Work) -> Callable[[Batch], Iterator[Batch]]:
    """What runs on the machines of the cluster: one share → its parts."""

    def over_share(batch: Batch) -> Iterator[Batch]:
        share = int(batch["share"][0])
        part = Range(int(batch["start"][0]), int(batch["end"][0]))
        whole = part == Range(0, os.path.getsize(path))
        reader = BlockReader(Path(path), part=None if whole else part)
        try:
            for number, block in enumerate(reader):
                made = work(block)
                yield _row(share, number, made.lines, _packed(made.rows), _packed(made.rejected))
        except UTGRecError as error:
            yield _row(share, 0, 0, b"", b"", type(error).__name__, str(error))

    return over_share


def _row(
    share: int,
    block: int,
    lines: int,
    rows: bytes,
    rejected: bytes,
    error: str = "",
    message: str = "",
) -> Batch:
    columns: Batch = {
        name: np.array([value])
        for name, value in (("share", share), ("block", block), ("lines", lines))
    }
    columns |= {"error": np.array([error]), "message": np.array([message])}
    for name, data in (("rows", rows), ("rejected", rejected)):
        columns[name] = np.array([data], dtype=object)
    return columns


def _packed(frame: pl.DataFrame) -> bytes:
    return frame.write_ipc(None, compression="lz4").getvalue()


def _unpacked(data: bytes) -> pl.DataFrame:
    return pl.read_ipc(bytes(data))


def _rebuilt(name: str, message: str) -> UTGRecError:
    """An error that a worker met, as if it had been met here."""
    from utgrec import errors

    kind: type[UTGRecError] = getattr(errors, name, UTGRecError)
    return kind(message)


def _hash(path: str) -> str:
    return storage.hash_file(Path(path))
