"""From the files of one category of Amazon Reviews 2023 to a domain folder.

Reviews become events that are filtered on disk; then the metadata are read, but only the items
that are left are cleaned. Nothing depends on how the files are cut into blocks, nor on where the
blocks are worked on.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl

from utgrec import storage
from utgrec.config import require, to_dict
from utgrec.data.amazon2023 import metadata, reviews
from utgrec.data.amazon2023.bad_lines import BadLines
from utgrec.data.amazon2023.check import against_paper
from utgrec.data.amazon2023.files import Found, Version, find_all
from utgrec.data.amazon2023.parts import Done, Machine, ThisMachine, Work
from utgrec.data.amazon2023.presets import find_category
from utgrec.data.blocks import Told
from utgrec.data.event_store import EventStore, Repeats, Selected
from utgrec.data.lines import LINE, CsvLines
from utgrec.data.look_alikes import count_look_alikes
from utgrec.data.pipeline import Catalogue, Plan, make_domain
from utgrec.data.rejects import MOST_LISTED, BadRows, Rejects
from utgrec.progress import Progress

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
    category = find_category(category)
    files = find_all(Path(data), category, options.version)
    config = {"category": category, **to_dict(options)}
    del config["overwrite"]
    plan = Plan(
        name=category,
        config=config,
        k_core=options.k_core,
        repeats=options.repeats,
        bad_rows=options.bad_rows,
        source=SOURCE,
        licence=options.licence,
        overwrite=options.overwrite,
    )
    source = AmazonSource(category, files, machine or ThisMachine())
    return make_domain(source, Path(out), plan, progress)


class AmazonSource:
    """The two files of one category."""

    def __init__(self, category: str, files: Found, machine: Machine) -> None:
        self.roots = list(files)
        self.picture_root = files.metadata.parent
        self._category, self._files, self._machine = category, files, machine
        self._hashes: dict[str, str] = {}

    def inputs(self) -> dict[str, str]:
        """Name → hash of each file; those that were read through are not read again."""
        for path in self._files:
            if path.name not in self._hashes:
                self._hashes[path.name] = storage.hash_file(path)
        return self._hashes

    def read_log(
        self, store: EventStore, work: Path, rejects: Rejects, tell: Progress
    ) -> dict[str, Any]:
        """The reviews."""
        path = self._files.reviews
        layout = reviews.layout_of(path)
        metadata.check_columns(self._files.metadata)
        task = functools.partial(reviews.read_reviews, layout=layout, file=path.name)
        done = self._through(path, task, rejects, _telling(tell, path, "reviews"), store.add)
        return {
            "rows": done.lines - isinstance(layout, CsvLines),
            "columns": {"user": "user_id", "item": "parent_asin", "timestamp": "timestamp"},
            "time": {
                "unit": "ms",
                "real": True,
                "rule": "ms since 1970 UTC (as the data set says), stored as they are",
            },
        }

    def read_items(
        self, taken: pl.Series, keep_untaken: bool, rejects: Rejects, tell: Progress
    ) -> Catalogue:
        """The metadata of the items that were taken, each once; without any, they are bare."""
        path = self._files.metadata
        found: dict[int, pl.DataFrame] = {}
        task = functools.partial(metadata.read_metadata, kept=taken, file=path.name)
        told = _telling(tell, path, "metadata")
        done = self._through(path, task, rejects, told, found.__setitem__)
        items = _firsts(path.name, found, done, rejects)
        return Catalogue(
            table=metadata.items_table(items, taken),
            places=np.arange(len(taken)),
            pictures=None,
            read=done.lines,
            known=None,
            facts=metadata.facts_of(items, taken),
            look_alikes=count_look_alikes(taken),
        )

    def further_facts(self, selected: Selected) -> dict[str, Any]:
        """How it compares with the paper."""
        return {"paper": against_paper(self._category, selected)}

    def _through(
        self,
        path: Path,
        task: Work,
        rejects: Rejects,
        told: Told,
        keep: Callable[[int, pl.DataFrame], None],
    ) -> Done:
        """Work through a file; `keep` is given each part, bad lines are handed over in the end."""
        bad = BadLines(MOST_LISTED)
        pieces = self._machine.over(path, task, told)
        for number, part in pieces:
            keep(number, part.rows)
            bad.add(number, part.rejected)
        done = pieces.done()
        bad.hand_over(rejects, done.before)
        self._hashes[path.name] = done.digest
        return done


def _firsts(
    file: str, found: dict[int, pl.DataFrame], done: Done, rejects: Rejects
) -> pl.DataFrame:
    """The first line of every item, in the order of the file."""
    items = pl.concat(
        [found[n].with_columns(pl.col(LINE) + done.before.get(n, 0)) for n in sorted(found)]
        or [pl.DataFrame(schema={**metadata.ITEM_SCHEMA, LINE: pl.Int64})]
    )
    firsts = items.unique("item_id", keep="first", maintain_order=True)
    again = items.join(firsts.select(LINE), on=LINE, how="anti").join(
        firsts.select("item_id", first=LINE), on="item_id", how="left", maintain_order="left"
    )
    rejects.add_frame(
        again.select(
            file=pl.lit(file),
            row=LINE,
            reason=pl.lit("duplicate item id"),
            item_id="item_id",
            user_id=pl.lit(None, dtype=pl.String),
            detail=pl.lit("first seen at row ") + pl.col("first").cast(pl.String),
        )
    )
    return firsts


def _telling(progress: Progress, path: Path, what: str) -> Told:
    """Progress in MiB of a file."""
    total = path.stat().st_size // MIB + 1
    return lambda done: progress(f"read {what} (MiB)", min(done // MIB, total), total)
