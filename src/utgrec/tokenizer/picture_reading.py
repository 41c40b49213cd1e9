"""Everything that is computed of pictures once: features of the frozen vision tower, and latents.

Worker processes decode and resize; the vision tower and the codec run where the model is. With a
cache, what was computed by any earlier run is read from disk instead.

Shapes: N items · M picture tokens · F width of features · G latents of a picture · C channels.
"""

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from utgrec.progress import Progress, silent
from utgrec.tokenizer.backbone import Backbone
from utgrec.tokenizer.cache import GIB, Claims, RowCache, check_room, shard_name
from utgrec.tokenizer.latents import Codec
from utgrec.tokenizer.picture_work import (
    AT_ONCE,
    Ints,
    Opened,
    Piece,
    Reader,
    look_at,
)
from utgrec.tokenizer.rows import ItemRows, Latents
from utgrec.tokenizer.workers import in_workers

log = logging.getLogger(__name__)


class ReadPictures(NamedTuple):
    """What is known of the pictures of N items."""

    features: ItemRows  # N items, rows of width F
    grids: Ints  # (N, 2), picture tokens in height and width; 0 without picture
    latents: Latents  # (pictures, G, C)
    latent_rows: Ints  # (N,), into latents; -1 without picture
    unreadable: list[int]  # items whose picture could not be read


class CachePlan(NamedTuple):
    """How much a cache will grow."""

    pictures: int  # pictures that are not in it yet
    bytes: int  # what they will take


def read_pictures(
    pictures: Sequence[Path | None],
    backbone: Backbone,
    codec: Codec | None,
    progress: Progress = silent,
    cache: Path | None = None,
    kept: RowCache | None = None,
) -> ReadPictures:
    """Features and latents of the pictures of N items, None for items without.

    Args:
        cache: folder that keeps everything that is computed; None keeps it in memory.
        kept: features that are looked up instead of computed, where nothing is to be kept.

    Raises:
        BadConfig: the cache would grow beyond its limit.
        StorageError: the cache's disk is full; what is computed stays.
    """
    owners = np.array([i for i, path in enumerate(pictures) if path is not None], dtype=np.int64)
    paths = [path for path in pictures if path is not None]
    reader = Reader(backbone, codec)
    if paths and kept is not None:
        found = _looked_up(paths, reader, progress, kept)
    elif cache is None or not paths:
        found = _in_memory(paths, reader, progress)
    else:
        found = _through_cache(paths, reader, progress, cache)
    features, latents, grids, good = found
    count, grid = len(pictures), codec.grid if codec else 1
    all_grids = np.zeros((count, 2), dtype=np.int64)
    all_grids[owners] = grids
    part, start, rows = (np.zeros(count, dtype=np.int64) for _ in range(3))
    part[owners], start[owners], rows[owners] = features.part, features.start, features.counts
    latent_rows = np.full(count, -1, dtype=np.int64)
    latent_rows[owners[good]] = np.arange(int(good.sum()))
    return ReadPictures(
        ItemRows(features.parts, part, start, rows),
        all_grids,
        Latents(latents, grid),
        latent_rows,
        owners[~good].tolist(),
    )


class _Found(NamedTuple):
    """Everything about n pictures; those that could not be read have no rows."""

    features: ItemRows
    latents: ItemRows  # of those that could be read
    grids: Ints  # (n, 2)
    good: npt.NDArray[np.bool_]  # (n,)


def _in_memory(paths: list[Path], reader: Reader, progress: Progress) -> _Found:
    """Compute everything and keep it in memory."""
    good = np.zeros(len(paths), dtype=bool)
    grids = np.zeros((len(paths), 2), dtype=np.int64)
    features, latents, done = [], [], 0
    pieces = [Piece(paths[at : at + AT_ONCE], True, True) for at in range(0, len(paths), AT_ONCE)]
    for piece, opened in zip(pieces, in_workers(reader.open, pieces, reader.workers), strict=True):
        out = reader.compute(opened)
        rows = done + np.array(out.good, dtype=np.int64)
        good[rows], grids[rows] = True, out.grids
        features.append(out.features)
        latents.append(out.latents)
        done += len(piece.paths)
        progress("Reading pictures", done, len(paths))
    nothing = reader.compute(Opened([], {}, None, []))
    grid = reader.codec.grid if reader.codec else 1
    latent_counts = np.full(int(good.sum()), grid if reader.codec else 0, dtype=np.int64)
    return _Found(
        ItemRows.in_order(torch.cat([nothing.features, *features]), grids.prod(axis=1)),
        ItemRows.in_order(torch.cat([nothing.latents, *latents]), latent_counts),
        grids,
        good,
    )


def feature_cache(backbone: Backbone, folder: Path) -> RowCache:
    """The cache of picture features for a backbone in a folder of caches.

    Raises:
        StorageError: the folder cannot be written.
    """
    return RowCache(
        folder, "features", backbone.describe(), backbone.feature_width, backbone.feature_dtype
    )


def _looked_up(paths: list[Path], reader: Reader, progress: Progress, kept: RowCache) -> _Found:
    """Features that are there already, all others computed and kept in memory; no latents."""
    keys = [key for key, _, _ in look_at(paths, reader)]
    found = kept.find(keys)
    readable = np.array([bool(key) for key in keys])
    new = np.flatnonzero(readable & (found.part < 0))
    made = _in_memory([paths[place] for place in new], reader, progress)
    good = readable.copy()
    good[new] = made.good
    part, start, counts = np.maximum(found.part, 0), found.start, found.counts
    part[new], start[new], counts[new] = len(found.parts), made.features.start, made.features.counts
    found.grids[new] = made.grids
    features = ItemRows(found.parts.plus(made.features.parts), part, start, counts)
    nothing = np.zeros(int(good.sum()), dtype=np.int64)
    return _Found(features, ItemRows.in_order(torch.zeros(0, 1), nothing), found.grids, good)


class _Caches:
    """The caches of features and of latents, and which pictures are in neither."""

    def __init__(self, reader: Reader, folder: Path, paths: list[Path]) -> None:
        backbone, codec = reader.backbone, reader.codec
        self.reader = reader
        self.features = feature_cache(backbone, folder)
        self.latents = (
            RowCache(folder, "latents", codec.describe(), codec.channels, codec.dtype)
            if codec
            else None
        )
        self.keys: list[bytes] = []
        self.paths: dict[bytes, Path] = {}
        self.tokens: dict[bytes, int] = {}
        for path, (key, height, width) in zip(paths, look_at(paths, reader), strict=True):
            self.keys.append(key)
            self.paths[key] = path
            if key:
                self.tokens[key] = reader.tokens(height, width)

    def missing(self) -> tuple[list[bytes], list[bytes]]:
        """Pictures whose features, and whose latents, are not there yet; in order of their hash."""
        known = sorted(self.tokens)
        lacking = [
            []
            if cache is None
            else [key for key, part in zip(known, cache.find(known).part, strict=True) if part < 0]
            for cache in (self.features, self.latents)
        ]
        return lacking[0], lacking[1]

    def plan(self) -> CachePlan:
        """How much is still to be computed."""
        features, latents = self.missing()
        size = sum(self.tokens[key] for key in features) * self.features.row_bytes
        if self.latents is not None and self.reader.codec is not None:
            size += len(latents) * self.reader.codec.grid * self.latents.row_bytes
        return CachePlan(len({*features, *latents}), size)


def plan_cache(
    pictures: Sequence[Path | None], backbone: Backbone, codec: Codec | None, folder: Path
) -> CachePlan:
    """How many pictures are still to be computed, and what the cache will take of them."""
    paths = [path for path in pictures if path is not None]
    return _Caches(Reader(backbone, codec), folder, paths).plan()


def _through_cache(paths: list[Path], reader: Reader, progress: Progress, folder: Path) -> _Found:
    """Compute what no run has computed before, and map everything from disk."""
    caches = _Caches(reader, folder, paths)
    plan = caches.plan()
    if plan.pictures:
        log.info(
            "computing %d of %d pictures: %.2f GiB into %s",
            plan.pictures,
            len(paths),
            plan.bytes / GIB,
            folder,
        )
        settings = reader.backbone.settings
        check_room(folder, plan.bytes, settings.machine.cache_gib if settings else 200.0)
        _fill(caches, progress)
    found = caches.features.find(caches.keys)
    good = found.part >= 0
    features = ItemRows(found.parts, np.maximum(found.part, 0), found.start, found.counts)
    kept = [key for key, fine in zip(caches.keys, good, strict=True) if fine]
    if caches.latents is None:
        none = np.zeros(len(kept), dtype=np.int64)
        return _Found(features, ItemRows.in_order(torch.zeros(0, 1), none), found.grids, good)
    seen = caches.latents.find(kept)
    return _Found(
        features, ItemRows(seen.parts, seen.part, seen.start, seen.counts), found.grids, good
    )


def _fill(caches: _Caches, progress: Progress) -> None:
    """Compute what is missing, together with other processes that do the same."""
    features, latents = (set(keys) for keys in caches.missing())
    wanted = sorted(features | latents)
    chunks = [wanted[at : at + AT_ONCE] for at in range(0, len(wanted), AT_ONCE)]
    claims = Claims(caches.features.folder / "locks")
    waiting = {shard_name(chunk): chunk for chunk in chunks}
    reader, taken = caches.reader, deque[list[bytes]]()

    def finished(chunk: list[bytes]) -> bool:
        return (not features & set(chunk) or caches.features.has_shard(chunk)) and (
            caches.latents is None or not latents & set(chunk) or caches.latents.has_shard(chunk)
        )

    def free() -> Iterator[Piece]:
        """Pieces that nobody else is computing now."""
        for name, chunk in list(waiting.items()):
            if not claims.take(name):
                continue
            del waiting[name]
            if finished(chunk):
                claims.give_back(name)
                continue
            taken.append(chunk)
            paths = [caches.paths[key] for key in chunk]
            yield Piece(paths, bool(features & set(chunk)), bool(latents & set(chunk)))

    try:
        while waiting:
            before = len(waiting)
            for opened in in_workers(reader.open, free(), reader.workers):
                chunk = taken.popleft()
                out = reader.compute(opened)
                keys = [chunk[place] for place in out.good]
                if features & set(chunk):
                    counts = out.grids.prod(axis=1)
                    caches.features.add(chunk, keys, out.features, counts, out.grids)
                if caches.latents is not None and reader.codec and latents & set(chunk):
                    counts = np.full(len(keys), reader.codec.grid, dtype=np.int64)
                    none = np.zeros((len(keys), 2), dtype=np.int64)
                    caches.latents.add(chunk, keys, out.latents, counts, none)
                claims.give_back(shard_name(chunk))
                left = sum(len(chunk) for chunk in waiting.values())
                progress("Reading pictures", len(wanted) - left, len(wanted))
            if len(waiting) == before:
                time.sleep(0.2)  # others hold all of them; one that dies gives its locks back
    finally:
        claims.give_all_back()
