"""From the files of one category of Amazon Reviews 2023 to a domain folder.

Reviews become events that are filtered on disk; then the metadata are read, but only the items
that are left are cleaned. Nothing depends on how the files are cut into blocks, nor on where the
blocks are worked on.
"""

import contextlib
import dataclasses
import errno
import functools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import polars as pl
import pyarrow as pa

from utgrec import storage
from utgrec.catalog import write_domain
from utgrec.config import require, to_dict
from utgrec.data.amazon2023 import metadata, reviews
from utgrec.data.amazon2023.bad_lines import BadLines
from utgrec.data.amazon2023.check import against_paper
from utgrec.data.amazon2023.files import Version, find_all
from utgrec.data.amazon2023.parts import Done, Machine, ThisMachine
from utgrec.data.amazon2023.presets import find_category
from utgrec.data.blocks import Told
from utgrec.data.event_store import EventStore, Repeats
from utgrec.data.finished import finished_domain, require_equal
from utgrec.data.lines import LINE, CsvLines, LineFormat
from utgrec.data.look_alikes import count_look_alikes
from utgrec.data.rejects import BadRows, Rejects
from utgrec.data.summary import count_repeats
from utgrec.errors import BadTable, StorageError
from utgrec.progress import Progress, silent

MOST_DETAILED = 100_000  # rows that are listed in rejected.parquet; the others are only counted
MIB = 2**20
SOURCE = "Amazon Reviews 2023, McAuley Lab, UC San Diego (arXiv 2403.03952)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AmazonOptions:
    """How a category of Amazon Reviews 2023 becomes a domain."""

    version: Version = "raw"
    """raw = all reviews; 5core = the official 5-core (rating_only). Both need the metadata."""
    k_core: int = 5
    """Users and items with fewer interactions are removed, again and again; 1 = none."""
    repeats: Repeats = "first"
    """Several reviews of one item by one user: first = the earliest stays, as in the official
    files; keep = all stay."""
    bad_rows: BadRows = "reject"
    """Lines that cannot be used: reject = set them aside; error = stop."""
    licence: str = ""
    """Terms of use of the data, in words."""
    overwrite: bool = False
    """Replace a domain that was made with other settings. Not part of the settings recorded."""

    def __post_init__(self) -> None:
        require(self.k_core >= 1, f"k_core is {self.k_core}; it must be 1 (no filter) or more")
        for setting, values in (("version", Version), ("repeats", Repeats), ("bad_rows", BadRows)):
            value, allowed = getattr(self, setting), get_args(values)
            require(value in allowed, f"{setting} is {value!r}; it is one of {', '.join(allowed)}")


def prepare_amazon(
    category: str,
    data: Path,
    out: Path,
    options: AmazonOptions,
    progress: Progress | None = None,
    machine: Machine | None = None,
) -> storage.Manifest:
    """Make the domain folder `out` of a category whose files are below `data`.

    Nothing is left behind if it fails. A finished domain with equal settings and equal input is
    returned as it is. `machine` works through the files; None = this one.

    Raises:
        BadConfig: no such category.
        BadTable: a file is missing, not whole, or no such file; a bad line (bad_rows="error").
        EmptyDomain: nothing is left after the filters.
        SettingsMismatch: `out` is a domain made with other settings or from other input.
        StorageError: `out` exists and is no domain folder.
    """
    category, out, tell = find_category(category), Path(out), progress or silent
    files = find_all(Path(data), category, options.version)
    config = {"category": category, **to_dict(options)}
    del config["overwrite"]
    finished = finished_domain(list(files), out, options.overwrite)
    if finished is not None:
        inputs = {path.name: storage.hash_file(path) for path in files}
        require_equal(out, finished, config, inputs)
        return finished

    layout = reviews.layout_of(files.reviews)
    metadata.check_columns(files.metadata)
    rejects = Rejects(options.bad_rows, most=MOST_DETAILED)
    work = machine or ThisMachine()
    with _room(out), storage.new_folder(out) as folder:
        events = folder / "events"
        events.mkdir()
        store = EventStore(events)
        told = _telling(tell, files.reviews, "reviews")
        of_reviews = _read_reviews(files.reviews, layout, store, rejects, work, told)
        rejects.settle(BadTable)
        tell("filter", 0, 1)
        selected = store.select(options.k_core, options.repeats)
        shutil.rmtree(events)
        tell("filter", 1, 1)
        told = _telling(tell, files.metadata, "metadata")
        found, of_metadata = _read_metadata(files.metadata, selected.item_ids, rejects, work, told)
        rejects.settle(BadTable)
        return write_domain(
            folder,
            name=category,
            items=metadata.items_table(found, selected.item_ids),
            user_ids=selected.user_ids.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(
                "string"
            ),
            interactions=pa.table(
                {
                    "user": selected.users,
                    "item": selected.items,
                    "timestamp": selected.timestamps,
                }
            ),
            config=config,
            inputs={files.reviews.name: of_reviews.digest, files.metadata.name: of_metadata.digest},
            facts={
                "source": SOURCE,
                "licence": options.licence,
                "read": {
                    "items": of_metadata.lines,
                    "interactions": of_reviews.lines - isinstance(layout, CsvLines),
                },
                "rejected": rejects.counts(),
                "filter": selected.facts,
                "duplicate_events": count_repeats(
                    selected.users, selected.items, selected.timestamps
                ).events,
                "time": {
                    "unit": "ms",
                    "real": True,
                    "rule": "ms since 1970 UTC (as the data set says), stored as they are",
                },
                "items": metadata.facts_of(found, selected.item_ids),
                "look_alike_ids": {
                    "items": count_look_alikes(selected.item_ids.to_list()),
                    "users": count_look_alikes(selected.user_ids.to_list()),
                },
                "paper": against_paper(category, selected),
            },
            rejected=rejects.table().to_arrow(),
        )


@contextlib.contextmanager
def _room(out: Path) -> Iterator[None]:
    """Say what a full disk means here."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"the disk of {out.parent} is full ({error.strerror}); nothing was left behind: "
                "make room (about 100 bytes for every review, while it works) and run it again"
            ) from error
        raise


def _read_reviews(
    path: Path,
    layout: LineFormat,
    store: EventStore,
    rejects: Rejects,
    machine: Machine,
    tell: Told,
) -> Done:
    """Fill the store."""
    bad = BadLines(MOST_DETAILED)
    work = functools.partial(reviews.read_reviews, layout=layout, file=path.name)
    pieces = machine.over(path, work, tell)
    for number, part in pieces:
        store.add(number, part.rows)
        bad.add(number, part.rejected)
    done = pieces.done()
    bad.hand_over(rejects, done.before)
    return done


def _read_metadata(
    path: Path, kept: pl.Series, rejects: Rejects, machine: Machine, tell: Told
) -> tuple[pl.DataFrame, Done]:
    """The items in `kept` in the order of the file, each once."""
    bad = BadLines(MOST_DETAILED)
    found: dict[int, pl.DataFrame] = {}
    work = functools.partial(metadata.read_metadata, kept=kept, file=path.name)
    pieces = machine.over(path, work, tell)
    for number, part in pieces:
        bad.add(number, part.rejected)
        found[number] = part.rows
    done = pieces.done()
    items = pl.concat(
        [found[n].with_columns(pl.col(LINE) + done.before.get(n, 0)) for n in sorted(found)]
        or [pl.DataFrame(schema={**metadata.ITEM_SCHEMA, LINE: pl.Int64})]
    )
    firsts = items.unique("item_id", keep="first", maintain_order=True)
    again = items.join(firsts.select(LINE), on=LINE, how="anti").join(
        firsts.select("item_id", first=LINE), on="item_id", how="left", maintain_order="left"
    )
    twice = again.select(
        file=pl.lit(path.name),
        row=LINE,
        reason=pl.lit("duplicate item id"),
        item_id="item_id",
        user_id=pl.lit(None, dtype=pl.String),
        detail=pl.lit("first seen at row ") + pl.col("first").cast(pl.String),
    )
    bad.hand_over(rejects, done.before)
    rejects.add_frame(twice)
    return firsts, done


def _telling(progress: Progress, path: Path, what: str) -> Told:
    """Progress in MiB of a file."""
    total = path.stat().st_size // MIB + 1
    return lambda done: progress(f"read {what} (MiB)", min(done // MIB, total), total)
