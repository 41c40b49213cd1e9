"""Events of any number: kept on disk as they come, filtered as numbers, read back only if kept.

`add` writes the ids of each part to disk and, beside them, 32 bits of their hashes. The k-core
first runs on those numbers, block by block, with a table of counts of fixed size: equal hashes
can only raise a count, so nothing that belongs to the k-core is lost, and nearly all else goes.
The ids of what is left are then numbered exactly, and the exact k-core runs on the numbers.

Memory: the tables of counts (16 bytes an event, at most 512 MiB), one part, and some 50 bytes for
every event that survives, with its ids once. It does not grow with what falls out.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from utgrec.data.kcore import k_core
from utgrec.errors import EmptyDomain

Repeats = Literal["first", "keep"]

EVENT_SCHEMA = pl.Schema({"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64})
MOST_SLOTS = 2**25  # counters of one table, 4 bytes each; filling it takes 8 more for a moment
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
    facts: dict[str, Any]


class EventStore:
    """Events on disk, in parts that may come in any order."""

    def __init__(self, folder: Path, *, most_slots: int = MOST_SLOTS) -> None:
        """`folder` is empty and belongs to the store."""
        self._folder = folder
        self._most_slots = most_slots
        self._counts: dict[int, int] = {}

    def __len__(self) -> int:
        return sum(self._counts.values())

    def add(self, part: int, events: pl.DataFrame) -> None:
        """Keep a part of the events; parts are ordered by their number."""
        self._counts[part] = events.height
        if not events.height:
            return
        events.select(list(EVENT_SCHEMA)).write_ipc(self._ids(part), compression="lz4")
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
            raise EmptyDomain("there is no interaction that can be used; check the files")
        seen, rounds = self._prune(k)
        users, items, table = self._numbered()
        order = np.lexsort((table.timestamps, table.users))  # stable: equal times keep their order
        user, item, time = table.users[order], table.items[order], table.timestamps[order]
        del table, order
        repeated = 0
        if repeats == "first":
            pair = user.astype(np.int64) * len(items) + item
            first = np.sort(np.unique(pair, return_index=True)[1])
            repeated = len(user) - len(first)
            user, item, time = user[first], item[first], time[first]
        core = k_core(user, item, k)
        if not core.keep.any():
            raise EmptyDomain(
                f"no interaction is left: {total:,} interactions hold no user and item with {k} "
                "interactions each; lower --k-core (1 = no filter)"
            )
        user, item, time = user[core.keep], item[core.keep], time[core.keep]
        kept_users, user_numbers = np.unique(user, return_inverse=True)
        kept_items, item_numbers = np.unique(item, return_inverse=True)
        return Selected(
            user_ids=users[kept_users],
            item_ids=items[kept_items],
            users=user_numbers.astype(np.int32),
            items=item_numbers.astype(np.int32),
            timestamps=time,
            facts={
                "k_core": k,
                "rounds": rounds + core.rounds,
                "repeats": repeats,
                "interactions_removed": total - len(user),
                # Of repeated pairs among what is left by the first filter; the others were
                # removed with their users and items.
                "repeated_interactions_removed": repeated,
                "about_users_removed": max(0, _rounded(seen[0] - len(kept_users))),
                "about_items_removed": max(0, _rounded(seen[1] - len(kept_items))),
            },
        )

    def _prune(self, k: int) -> tuple[tuple[int, int], int]:
        """Drop what surely is outside the k-core; (users, items) seen, about, and the rounds."""
        left, rounds, seen = len(self), 0, (0, 0)
        while True:
            bits = _bits(left, self._most_slots)
            counts = [np.zeros(2**bits, dtype=np.uint32) for _ in range(2)]
            for hashes in self._batches():
                for table, column in zip(counts, hashes, strict=True):
                    table += np.bincount(_slots(column, bits, rounds), minlength=len(table)).astype(
                        np.uint32
                    )
            if not rounds:
                seen = (_distinct(counts[0]), _distinct(counts[1]))
            if k <= 1:
                return seen, 0
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

    def _numbered(self) -> tuple[pl.Series, pl.Series, "_Table"]:
        """Exact ids of the survivors in the order of their text, and their events as numbers."""
        names: dict[str, list[pl.Series]] = {"user_id": [], "item_id": []}
        for part, (_, _, rows) in self._survivors():
            for name, found in names.items():
                found.append(self._read(part, rows, [name])[name].unique())
                if len(found) > 16:
                    found[:] = [pl.concat(found).unique()]
        ids = {name: pl.concat(found).unique().sort() for name, found in names.items() if found}
        if not ids:
            return pl.Series(dtype=pl.String), pl.Series(dtype=pl.String), _Table.of([])
        numbers = {
            name: pl.DataFrame({name: found, "n": np.arange(len(found), dtype=np.int32)})
            for name, found in ids.items()
        }
        tables = []
        for part, (_, _, rows) in self._survivors():
            events = self._read(part, rows, list(EVENT_SCHEMA))
            columns = [
                events.select(name)
                .join(numbers[name], on=name, how="left", maintain_order="left")["n"]
                .to_numpy()
                for name in ("user_id", "item_id")
            ]
            tables.append(_Table(columns[0], columns[1], events["timestamp"].to_numpy()))
        return ids["user_id"], ids["item_id"], _Table.of(tables)

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

    def _read(self, part: int, rows: Hashes, columns: list[str]) -> pl.DataFrame:
        frame = pl.read_ipc(self._ids(part), columns=columns)
        return frame if len(rows) == frame.height else frame[rows]

    def _ids(self, part: int) -> Path:
        return self._folder / f"{part:08d}.arrow"

    def _hashes(self, part: int) -> Path:
        return self._folder / f"{part:08d}.hashes"


class _Table(NamedTuple):
    """Events as numbers."""

    users: Ints  # (n,)
    items: Ints  # (n,)
    timestamps: npt.NDArray[np.int64]  # (n,)

    @classmethod
    def of(cls, tables: list["_Table"]) -> "_Table":
        if not tables:
            none = np.zeros(0, dtype=np.int32)
            return cls(none, none, none.astype(np.int64))
        return cls(*(np.concatenate(columns) for columns in zip(*tables, strict=True)))


def _write(path: Path, values: npt.NDArray[np.uint32]) -> None:
    with open(path, "wb") as stream:
        stream.write(np.ascontiguousarray(values).tobytes())


def _bits(events: int, most: int) -> int:
    """Bits of a slot: at least two slots for each event, as far as memory allows."""
    return max(4, min((2 * events).bit_length(), most.bit_length() - 1))


def _slots(hashes: Hashes, bits: int, number: int) -> Hashes:
    """Another place for each hash in every round, so that what met by chance parts again."""
    mixed = hashes * np.uint32(_ODD[number % len(_ODD)])
    return mixed >> np.uint32(32 - bits)


def _distinct(counts: npt.NDArray[np.uint32]) -> int:
    """How many different hashes filled a table of counts, about (linear counting)."""
    empty = int((counts == 0).sum())
    return round(len(counts) * math.log(len(counts) / max(empty, 1)))


def _rounded(count: int) -> int:
    """Three digits: the count is an estimate and shall not look like more."""
    return int(float(f"{count:.3g}"))
