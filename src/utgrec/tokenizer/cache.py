"""What was computed of pictures once, on disk: rows of numbers by the hash of the picture's bytes.

A cache is a folder per kind of row and settings. It grows by *shards*: a file of plain numbers,
which is memory-mapped, and an index, which is written last; a shard without index does not count.
Names of shards follow from what they hold, and a lock per shard shares the work out, so several
processes can fill one cache at once, and what one of them finished is never lost.

Shapes: n pictures of a shard · M rows · F width of a row.
"""

import contextlib
import functools
import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from utgrec import storage
from utgrec.config import fingerprint, require
from utgrec.errors import CorruptFile, SettingsMismatch, StorageError
from utgrec.tokenizer.rows import Parts

log = logging.getLogger(__name__)
GIB = 2**30
SETTINGS, ROWS, INDEX = "settings.json", ".rows", ".index.safetensors"
STALE_S = 86_400


class Found(NamedTuple):
    """Where the rows of some pictures are."""

    parts: Parts  # (rows, F) each, files that are mapped when they are read; at least one
    part: npt.NDArray[np.int64]  # (n,), into parts; -1 for what is not there
    start: npt.NDArray[np.int64]  # (n,), first row
    counts: npt.NDArray[np.int64]  # (n,), rows
    grids: npt.NDArray[np.int64]  # (n, 2)


class RowCache:
    """Rows of one kind, made with one set of settings."""

    def __init__(
        self, folder: Path, kind: str, settings: dict[str, Any], width: int, dtype: torch.dtype
    ) -> None:
        """Open or begin a cache.

        Args:
            folder: holds caches of any kinds and settings beside each other.
            settings: everything that the numbers depend on, beside the picture.

        Raises:
            SettingsMismatch: the folder of these settings was made with others.
            StorageError: the folder cannot be written.
        """
        self.width, self.dtype = width, dtype
        settings = {**settings, "kind": kind, "width": width, "dtype": str(dtype)}
        self.root = folder
        # Hash → shard, first row, rows, height, width: what `find` has read of the indexes so far.
        self._known: dict[bytes, tuple[str, int, int, int, int]] = {}
        self._read: set[str] = set()
        self.folder = folder / f"{kind}-{fingerprint(settings)[:16]}"
        told = self.folder / SETTINGS
        with _writing(self.folder):
            (self.folder / "shards").mkdir(parents=True, exist_ok=True)
            if not told.is_file():
                # Others may begin the same cache now: none must tidy up another's partial file.
                partial = self.folder / f".{SETTINGS}.{uuid.uuid4().hex}.partial"
                partial.write_text(json.dumps(settings, indent=1), encoding="utf-8")
                os.replace(partial, told)
            for stale in (self.folder / "shards").glob(".*.partial"):
                if time.time() - stale.stat().st_mtime > STALE_S:  # a killed run left it behind
                    stale.unlink(missing_ok=True)
        if storage.read_json(told) != settings:
            raise SettingsMismatch(
                f"{self.folder} was made with other settings than its name says; delete it, and it "
                "is made again"
            )

    @property
    def row_bytes(self) -> int:
        """Size of one row."""
        return self.width * torch.empty(0, dtype=self.dtype).element_size()

    def find(self, keys: Sequence[bytes]) -> Found:
        """Where the rows of pictures with these hashes (32 bytes each) are.

        An index is read once by this object, and only files that hold some of these are looked at.
        """
        parts: list[Tensor | Callable[[], Tensor]] = [torch.zeros(0, self.width, dtype=self.dtype)]
        for index in sorted((self.folder / "shards").glob(f"*{INDEX}")):
            if index.name not in self._read:
                self._learn(index)
        mapped: dict[str, int] = {}
        table = np.zeros((len(keys), 5), dtype=np.int64)
        table[:, 0] = -1
        for row, key in enumerate(keys):
            if key not in self._known:
                continue
            name, *place = self._known[key]
            if name not in mapped:
                here = self._is_here(name)
                mapped[name] = len(parts) if here else -1
                parts += [functools.partial(self._map, name)] if here else []
            if mapped[name] >= 0:
                table[row] = mapped[name], *place
        return Found(Parts(parts), table[:, 0], table[:, 1], table[:, 2], table[:, 3:])

    def has_shard(self, keys: Sequence[bytes]) -> bool:
        """Whether the shard of exactly these pictures is finished."""
        return (self.folder / "shards" / (shard_name(keys) + INDEX)).is_file()

    def add(
        self,
        asked: Sequence[bytes],
        keys: Sequence[bytes],
        rows: Tensor,
        counts: npt.NDArray[np.int64],
        grids: npt.NDArray[np.int64],
    ) -> None:
        """Write a shard. `asked` names it; `keys` are those of them that could be computed.

        Shapes: rows (M, F), counts (n,), grids (n, 2).

        Raises:
            StorageError: the disk is full; finished shards stay.
        """
        shards, name = self.folder / "shards", shard_name(asked)
        flat = rows.detach().to("cpu", self.dtype).contiguous().view(-1).view(torch.uint8).numpy()
        index = {
            "keys": torch.from_numpy(
                np.frombuffer(b"".join(keys), np.uint8).copy().reshape(-1, 32)
            ),
            "counts": torch.from_numpy(counts.astype(np.int64)),
            "grids": torch.from_numpy(grids.astype(np.int64)).contiguous(),
        }
        partial = shards / f".{name}.{uuid.uuid4().hex}.partial"
        with _writing(self.folder):
            try:
                with open(partial, "wb") as stream:
                    stream.write(flat.data)
                    stream.flush()
                    os.fsync(stream.fileno())
                os.replace(partial, shards / (name + ROWS))
                save_file(index, partial)
                os.replace(partial, shards / (name + INDEX))
            finally:
                partial.unlink(missing_ok=True)

    def _learn(self, index: Path) -> None:
        """Read what a shard holds; one that is broken is removed, with a warning."""
        path = index.with_name(index.name.removesuffix(INDEX) + ROWS)
        try:
            told = load_file(index)
            counts = told["counts"].numpy()
            keys = [row.tobytes() for row in told["keys"].numpy()]
            if not path.is_file() or path.stat().st_size != int(counts.sum()) * self.row_bytes:
                raise CorruptFile(f"{path} is missing or cut short")
        except (SafetensorError, CorruptFile, KeyError, OSError) as error:
            log.warning("%s is broken (%s) and is made again", index, error)
            index.unlink(missing_ok=True)
            return
        self._read.add(index.name)
        starts = np.cumsum(counts) - counts
        for key, start, count, grid in zip(keys, starts, counts, told["grids"], strict=True):
            self._known[key] = (path.name, int(start), int(count), int(grid[0]), int(grid[1]))

    def _is_here(self, name: str) -> bool:
        """Whether a shard can be read, or has gone since its index was read."""
        try:
            with open(self.folder / "shards" / name, "rb"):
                return True
        except OSError as error:
            log.warning("%s cannot be read (%s)", name, error)
            return False

    def _map(self, name: str) -> Tensor:
        """The rows of a shard, mapped."""
        path = self.folder / "shards" / name
        try:
            if path.stat().st_size == 0:
                return torch.zeros(0, self.width, dtype=self.dtype)
            # Copy on write: torch warns of memory that nobody may write; nobody does.
            mapped = torch.from_numpy(np.memmap(path, np.uint8, mode="c"))
        except OSError as error:
            raise StorageError(
                f"{path} cannot be read any more ({error}); the cache must stay while it is used. "
                "Run it again, and what is missing is made again"
            ) from error
        return mapped.view(self.dtype).view(-1, self.width)


class Claims:
    """Shares pieces of work out among processes: a piece belongs to who holds its lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: dict[str, Any] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def take(self, name: str) -> bool:
        """Whether the piece is ours now."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        self._held[name] = lock
        return True

    def give_back(self, name: str) -> None:
        """The piece is done, or will not be done by us."""
        # Removed while it is held: who waits for it finds the piece done, or takes it anew.
        (self.folder / f"{name}.lock").unlink(missing_ok=True)
        self._held.pop(name).release()

    def give_all_back(self) -> None:
        """None of the pieces still held will be done by us."""
        for name in list(self._held):
            self.give_back(name)


def shard_name(keys: Sequence[bytes]) -> str:
    """The name of the shard that holds exactly these pictures."""
    return hashlib.sha256(b"".join(keys)).hexdigest()[:24]


def folder_bytes(folder: Path) -> int:
    """Size of all files below a folder."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # others may be renaming
            total += path.stat().st_size if path.is_file() else 0
    return total


def check_room(root: Path, needed: int, limit_gib: float) -> None:
    """Refuse what would not fit, before anything is computed.

    Raises:
        BadConfig: the cache would grow beyond its limit.
        StorageError: the disk has less room than that.
    """
    present = folder_bytes(root)
    require(
        present + needed <= limit_gib * GIB,
        f"the cache {root} holds {present / GIB:.2f} GiB and needs {needed / GIB:.2f} GiB more, "
        f"beyond its limit of {limit_gib:g} GiB; raise the limit (cache_gib), lower max_pixels, or "
        "delete folders in it that are no longer used",
    )
    free = shutil.disk_usage(root).free
    if needed > free:
        raise StorageError(
            f"the cache {root} needs {needed / GIB:.2f} GiB, and its disk has {free / GIB:.2f} GiB "
            "left; free some, or give another folder (cache, or $UTGREC_CACHE)"
        )


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turns what a disk can refuse into an error that says what to do."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        what = "the disk is full" if storage.is_full(error) else f"it cannot be written ({error})"
        raise StorageError(
            f"the cache {folder}: {what}; what is finished stays. Free some room or give another "
            "folder (cache, or $UTGREC_CACHE), and run it again"
        ) from error
