"""Two tables as a source, whatever they were read from: plain files, RecBole's, saved data sets.

Both can be read part by part, and any number of times.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from utgrec import storage
from utgrec.data.event_store import EventStore, Selected
from utgrec.data.items import ItemIds, Items, find_ids, take_rows
from utgrec.data.log import LogOptions, read_log
from utgrec.data.look_alikes import count_look_alikes
from utgrec.data.options import TableOptions, settings_of
from utgrec.data.pipeline import Catalogue, Pictures, Plan
from utgrec.data.rejects import Rejects
from utgrec.data.table import Table
from utgrec.errors import BadTable
from utgrec.progress import Progress

Hears = Callable[[int], None]
"""Called with the number of bytes that were read so far."""
ItemParts = Callable[[Rejects, Sequence[str] | None, Hears], Iterator[Table]]
"""Parts of the table of items, or of some of its columns."""
LogParts = Callable[[Rejects, Hears], Iterator[Table]]
"""Parts of the log."""

MIB = 2**20


class Reading(NamedTuple):
    """How the two tables are read."""

    items: ItemParts
    log: LogParts
    id_column: str  # of the items
    roles: Mapping[str, str]  # of the log: role → column
    clean: Callable[[Table], Items]  # rows of items, each with an id of its own
    bytes: tuple[int, int] = (0, 0)  # of the items and of the log, for the progress


class TablesSource:
    """A table of items and a log."""

    def __init__(
        self,
        root: Path,
        files: Sequence[Path],
        reading: Reading,
        options: LogOptions,
        picture_root: Path | None = None,
    ) -> None:
        """`files` are all that is read; pictures are looked for below `picture_root` or `root`."""
        self.roots = [root]
        self.picture_root = picture_root or root
        self._files = files
        self._reading = reading
        self._options = options
        self._ids: ItemIds

    def inputs(self) -> dict[str, str]:
        """Path relative to the source folder → hash."""
        if not hasattr(self, "_hashes"):
            self._hashes = hash_inputs(self.roots[0], self._files)
        return self._hashes

    def read_log(
        self, store: EventStore, work: Path, rejects: Rejects, tell: Progress
    ) -> dict[str, Any]:
        """Read the ids of all items, then the log."""
        reading = self._reading
        hears = _hears(tell, "read items", reading.bytes[0])
        self._ids = find_ids(
            reading.items(rejects, [reading.id_column], hears), reading.id_column, rejects
        )
        rejects.settle(BadTable)
        tell("read items", 1, 1)
        facts = read_log(
            reading.log(rejects, _hears(tell, "read interactions", reading.bytes[1])),
            reading.roles,
            self._ids.ids,
            work,
            store,
            rejects,
            self._options,
        )
        tell("read interactions", 1, 1)
        return facts

    def read_items(
        self, taken: pl.Series, keep_untaken: bool, rejects: Rejects, tell: Progress
    ) -> Catalogue:
        """Read the rows of the items that stay, in the order of the source."""
        known = self._ids
        numbers = pl.DataFrame({"id": known.ids, "n": np.arange(len(known.ids))})
        found = (
            pl.DataFrame({"id": taken})
            .join(numbers, on="id", how="left", maintain_order="left")["n"]
            .to_numpy()
        )
        chosen = np.arange(len(known.ids)) if keep_untaken else np.sort(found)
        again = self._reading.items(
            Rejects("reject", most=0), None, _hears(tell, "clean items", self._reading.bytes[0])
        )
        items = self._reading.clean(take_rows(again, known.places[chosen]))
        tell("clean items", 1, 1)
        return Catalogue(
            table=items.table([None] * len(items.ids)),
            places=np.searchsorted(chosen, found),
            pictures=Pictures(items.pictures, items.files, items.rows),
            read=known.read,
            known=len(known.ids),
            facts=items.facts,
            look_alikes=count_look_alikes(known.ids),
        )

    def further_facts(self, selected: Selected) -> dict[str, Any]:
        """Nothing else."""
        return {}


def hash_inputs(root: Path, paths: Sequence[Path]) -> dict[str, str]:
    """Path relative to the source folder → hash, for the manifest."""
    return {Path(os.path.relpath(path, root)).as_posix(): storage.hash_file(path) for path in paths}


def make_plan(options: TableOptions) -> Plan:
    """What of the options says how a domain is made."""
    return Plan(
        config=settings_of(options),
        earlier=settings_of(TableOptions()),
        keep_untaken=options.keeps_untaken_items,
        **{
            name: getattr(options, name)
            for name in (
                *("name", "k_core", "split", "bad_rows", "max_image_pixels", "source", "licence"),
                "overwrite",
            )
        },
    )


def size_of(paths: Sequence[Path]) -> int:
    """Bytes of some files together."""
    return sum(path.stat().st_size for path in paths)


def one_after_the_other(
    paths: Sequence[Path], read: Callable[[Path, Hears], Iterator[Table]], hears: Hears
) -> Iterator[Table]:
    """The parts of several files; `hears` is told the bytes of all of them."""
    before = 0
    for path in paths:
        start = before
        yield from read(path, lambda done, start=start: hears(start + done))  # type: ignore[misc]
        before += path.stat().st_size
        hears(before)


def _hears(tell: Progress, work: str, total: int) -> Hears:
    """Progress in MiB; the end is told by who knows it."""
    whole = total // MIB + 1
    tell(work, 0, whole)
    return lambda done: tell(work, min(done // MIB, whole - 1), whole)
