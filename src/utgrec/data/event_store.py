"""Events of any number: kept on disk as they come, filtered as numbers, read back only if kept.

`add` writes the ids of each part to disk and, beside them, 32 bits of their hashes. The k-core
first runs on those numbers, block by block, with a table of counts of fixed size: equal hashes
can only raise a count, so nothing that belongs to the k-core is lost, and nearly all else goes.
The ids of what is left are then numbered exactly, and the exact k-core runs on the numbers. A
log of at most 131,072 events is small enough for the exact way alone.

Memory: the tables of counts (8 to 16 bytes an event, at most 256 MiB), one part, and some 50 bytes
for every event that survives, with its ids once. It does not grow with what falls out.
"""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from utgrec.data.kcore import nothing_left, require_core
from utgrec.errors import EmptyDomain

Repeats = Literal["first", "keep"]

EVENT_SCHEMA = pl.Schema({"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64})
MOST_SLOTS = 2**25  # counters of one table, 4 bytes each
SMALL = 2**17  # events that are filtered exactly from the start
TOGETHER = 2**20  # hashes that are counted at once
SMALL_GAIN = 0.02  # a round that removes a smaller share is the last one on hashes
_ODD = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1)

Hashes = npt.NDArray[np.uint32]
Ints = npt.NDArray[np.int32]


class Selected(NamedTuple):
    """The events that are left, sorted by user, then time, then the order in which they came.

    Users and items are numbered in the order of their ids as text.
    """

    user_ids: pl.Series  # (U,)
    item_ids: pl.Series  # (N,)
    users: Ints  # (n,)
    items: Ints  # (n,)
    timestamps: npt.NDArray[np.int64]  # (n,), ms
    extra: pl.DataFrame  # (n,), further columns
    unsorted: int  # of them that came after a later one of their user
    items_seen: int  # different items before the filter; an estimate for a large log
    facts: dict[str, Any]


class EventStore:
    """Events on disk, in parts that may come in any order."""

    def __init__(self, folder: Path, *, most_slots: int = MOST_SLOTS, small: int = SMALL) -> None:
        """`folder` is empty and belongs to the store."""
        self._folder = folder
        self._most_slots = most_slots
        self._small = small
        self._counts: dict[int, int] = {}

    def __len__(self) -> int:
        return sum(self._counts.values())

    def add(self, part: int, events: pl.DataFrame) -> None:
        """Keep a part of the events; parts are ordered by their number.

        `events` has the columns of EVENT_SCHEMA, and in every part the same further ones.
        """
        self._counts[part] = events.height
        if not events.height:
            return
        events.write_ipc(self._ids(part), compression="lz4")
        hashes = [
            (events[name].hash(seed=seed).to_numpy() >> np.uint64(32)).astype(np.uint32)
            for seed, name in enumerate(("user_id", "item_id"))
        ]
        rows = np.arange(events.height, dtype=np.uint32)
        _write(self._hashes(part), np.stack([*hashes, rows]))

    def select(self, k: int, repeats: Repeats) -> Selected:
        """Leave out repeated pairs of user and item ("first": only the earliest stays), then all
        outside the k-core. To be called once: what falls out is gone.

        Raises:
            EmptyDomain: there is no event, or none is left.
        """
        total = len(self)
        if not total:
            raise EmptyDomain(
                "there is no interaction that can be used; check that the table has rows"
            )
        exact = k <= 1 or total <= self._small
        seen, rounds = ((0, 0), 0) if exact else self._prune(k)
        users, items, table = self._numbered(k)
        if exact:
            seen = (len(users), len(items))
        # Stable: equal times keep their order.
        order = np.lexsort((table["timestamp"].to_numpy(), table["user"].to_numpy()))
        user, item = table["user"].to_numpy()[order], table["item"].to_numpy()[order]
        repeated = 0
        if repeats == "first":
            pair = user.astype(np.int64) * len(items) + item
            first = np.sort(np.unique(pair, return_index=True)[1])
            repeated = len(user) - len(first)
            order, user, item = order[first], user[first], item[first]
        core = require_core(user, item, k, total)
        order = order[core.kept]
        kept = table[order]
        return Selected(
            user_ids=users[core.user_numbers],
            item_ids=items[core.item_numbers],
            users=core.users,
            items=core.items,
            timestamps=kept["timestamp"].to_numpy(),
            extra=kept.drop("user", "item", "timestamp"),
            unsorted=_unsorted(core.users, kept["timestamp"].to_numpy(), order),
            items_seen=seen[1],
            facts={
                "k_core": k,
                "rounds": rounds + core.rounds,
                "repeats": repeats,
                "interactions_removed": total - len(order),
                # Of repeated pairs among what is left by the first filter; the others were
                # removed with their users and items.
                "repeated_interactions_removed": repeated,
                "users_removed": _rounded(seen[0] - len(core.user_numbers), exact),
                "items_removed": _rounded(seen[1] - len(core.item_numbers), exact),
                "exact": exact,
            },
        )

    def clear(self) -> None:
        """Remove what is left on disk."""
        shutil.rmtree(self._folder)

    def _prune(self, k: int) -> tuple[tuple[int, int], int]:
        """Drop what surely is outside the k-core; (users, items) seen, about, and the rounds."""
        left, rounds, seen = len(self), 0, (0, 0)
        while True:
            bits = _bits(left, self._most_slots)
            counts = [np.zeros(2**bits, dtype=np.uint32) for _ in range(2)]
            for hashes in self._batches():
                for table, column in zip(counts, hashes, strict=True):
                    np.add.at(table, _slots(column, bits, rounds), np.uint32(1))
            if not rounds:
                seen = (_distinct(counts[0]), _distinct(counts[1]))
            after = 0
            for part, (users, items, rows) in self._survivors():
                enough = counts[0][_slots(users, bits, rounds)] >= k
                enough &= counts[1][_slots(items, bits, rounds)] >= k
                _write(self._hashes(part), np.stack([users, items, rows])[:, enough])
                after += int(enough.sum())
            rounds += 1
            if left - after <= SMALL_GAIN * left:
                return seen, rounds
            left = after

    def _numbered(self, k: int) -> tuple[pl.Series, pl.Series, pl.DataFrame]:
        """Exact ids of the survivors in the order of their text, and their events as numbers."""
        names: dict[str, list[pl.Series]] = {"user_id": [], "item_id": []}
        for part, (_, _, rows) in self._survivors():
            for name, found in names.items():
                found.append(self._read(part, rows, [name])[name].unique())
                if len(found) > 16:
                    found[:] = [pl.concat(found).unique()]
        if not names["user_id"]:
            raise EmptyDomain(nothing_left(len(self), k))
        ids = {name: pl.concat(found).unique().sort() for name, found in names.items()}
        numbers = {
            name: pl.DataFrame({name: found, "n": np.arange(len(found), dtype=np.int32)})
            for name, found in ids.items()
        }
        tables = []
        for part, (_, _, rows) in self._survivors():
            events = self._read(part, rows, None)
            columns = [
                events.select(name)
                .join(numbers[name], on=name, how="left", maintain_order="left")["n"]
                .alias(name.removesuffix("_id"))
                for name in ("user_id", "item_id")
            ]
            tables.append(events.drop("user_id", "item_id").with_columns(columns))
        return ids["user_id"], ids["item_id"], pl.concat(tables)

    def _survivors(self) -> Iterator[tuple[int, npt.NDArray[np.uint32]]]:
        """Each part and its (3, n): hashes of users and items, places of the rows."""
        for part in sorted(self._counts):
            path = self._hashes(part)
            if self._counts[part] and path.stat().st_size:
                yield part, np.fromfile(path, dtype=np.uint32).reshape(3, -1)

    def _batches(self) -> Iterator[npt.NDArray[np.uint32]]:
        """The hashes (2, n) of many parts together."""
        waiting: list[npt.NDArray[np.uint32]] = []
        for _, survivors in self._survivors():
            waiting.append(survivors[:2])
            if sum(each.shape[1] for each in waiting) >= TOGETHER:
                yield np.concatenate(waiting, axis=1)
                waiting = []
        if waiting:
            yield np.concatenate(waiting, axis=1)

    def _read(self, part: int, rows: Hashes, columns: list[str] | None) -> pl.DataFrame:
        frame = pl.read_ipc(self._ids(part), columns=columns)
        return frame if len(rows) == frame.height else frame[rows]

    def _ids(self, part: int) -> Path:
        return self._folder / f"{part:08d}.arrow"

    def _hashes(self, part: int) -> Path:
        return self._folder / f"{part:08d}.hashes"


def _write(path: Path, values: npt.NDArray[np.uint32]) -> None:
    with open(path, "wb") as stream:
        stream.write(np.ascontiguousarray(values).tobytes())


def _bits(events: int, most: int) -> int:
    """Bits of a slot: at least one slot for each event, as far as memory allows."""
    return max(4, min(events.bit_length(), most.bit_length() - 1))


def _slots(hashes: Hashes, bits: int, number: int) -> Hashes:
    """Another place for each hash in every round, so that what met by chance parts again."""
    mixed = hashes * np.uint32(_ODD[number % len(_ODD)])
    return mixed >> np.uint32(32 - bits)


def _distinct(counts: npt.NDArray[np.uint32]) -> int:
    """How many different hashes filled a table of counts, about (linear counting)."""
    empty = int((counts == 0).sum())
    return round(len(counts) * math.log(len(counts) / max(empty, 1)))


def _rounded(count: int, exact: bool) -> int:
    """An estimate is told by three digits, so that it does not look like more."""
    return count if exact else max(0, int(float(f"{count:.3g}")))


def _unsorted(users: Ints, times: npt.NDArray[np.int64], arrival: npt.NDArray[np.int64]) -> int:
    """Events that came after a later one of their user; all (n,), sorted by user and time."""
    came = np.lexsort((arrival, users))  # each user's events in the order in which they came
    return int(((np.diff(users[came]) == 0) & (np.diff(times[came]) < 0)).sum())
