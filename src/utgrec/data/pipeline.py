"""The one way from any source to a domain folder: read ids, filter, read what stays, write.

A source fills a store of events on disk; the filter runs there, on ids. Then the source is asked
for the items that are left, and only they are cleaned and held. So memory grows with what is
kept, not with what is read.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from utgrec import storage
from utgrec.catalog import SplitRule, write_domain
from utgrec.config import fingerprint
from utgrec.data.event_store import EventStore, Repeats, Selected
from utgrec.data.finished import finished_domain, require_equal
from utgrec.data.images import PILLOW_LIMIT, Stored, hash_images, store_images
from utgrec.data.look_alikes import count_look_alikes
from utgrec.data.rejects import MOST_LISTED, BadRows, Rejects
from utgrec.data.split import divide
from utgrec.data.splitting import SplitOptions, choose_split, split_counts
from utgrec.data.summary import count_repeats
from utgrec.errors import BadImage, BadTable, EmptyDomain
from utgrec.progress import Progress, silent

FULL = (
    "nothing was left behind: make room (about 200 bytes for every interaction, while it works) "
    "and run it again"
)


class Pictures(NamedTuple):
    """The local pictures of N items, and where these items stand, for messages."""

    references: list[str | None]  # (N,), paths below the root of the source
    files: list[str]  # (N,)
    rows: npt.NDArray[np.int64]  # (N,)


class Catalogue(NamedTuple):
    """The N items of the domain that is made."""

    table: pa.Table  # the items table, its image column empty
    places: npt.NDArray[np.int64]  # (items taken,), where those that were taken stand in it
    pictures: Pictures | None  # None = the source has no local pictures
    read: int  # rows of the source's table of items
    known: int | None  # different items of the source; None = it knows those of the log alone
    facts: dict[str, Any]
    look_alikes: dict[str, Any]


class Source(Protocol):
    """Anything that a domain can be made from."""

    @property
    def roots(self) -> list[Path]:
        """What `out` must not hold."""

    @property
    def picture_root(self) -> Path:
        """The folder below which local pictures are looked for."""

    def inputs(self) -> dict[str, str]:
        """Name of each file → hash of its bytes."""

    def read_log(
        self, store: EventStore, work: Path, rejects: Rejects, tell: Progress
    ) -> dict[str, Any]:
        """Fill the store; the facts `rows`, `time`, `columns` and, if told, `events`."""

    def read_items(
        self, taken: pl.Series, keep_untaken: bool, rejects: Rejects, tell: Progress
    ) -> Catalogue:
        """The items that were taken, and those that stay although nobody took them."""

    def further_facts(self, selected: Selected) -> dict[str, Any]:
        """What else the manifest records."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How a domain is made from a source."""

    name: str
    """Name of the domain."""
    config: dict[str, Any]
    """All settings, for the manifest."""
    earlier: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Defaults of settings that a finished domain may not know yet."""
    k_core: int
    """Users and items with fewer interactions are removed, again and again; 1 = none."""
    repeats: Repeats = "keep"
    """Several interactions of one user with one item: keep all, or the first alone."""
    keep_untaken: bool = False
    """Whether items without interactions stay."""
    split: SplitOptions = dataclasses.field(default_factory=SplitOptions)
    """How the log is divided."""
    bad_rows: BadRows = "error"
    """Rows that cannot be used: stop, or set them aside."""
    max_image_pixels: int = PILLOW_LIMIT
    """A local picture with more pixels is refused."""
    source: str = ""
    """Where the data come from, in words."""
    licence: str = ""
    """Terms of use, in words."""
    overwrite: bool = False
    """Replace a domain that was made otherwise."""


def make_domain(
    source: Source, out: Path, plan: Plan, progress: Progress | None = None
) -> storage.Manifest:
    """Make the domain folder `out`.

    Nothing is left behind if it fails. A finished domain with equal settings and equal input is
    returned as it is.

    Raises:
        BadTable, BadImage: the source cannot be read, or a row cannot be used (bad_rows="error").
        EmptyDomain: nothing is left after the filters.
        SettingsMismatch: `out` is a domain made with other settings or from other input.
        StorageError: `out` exists and is no domain folder, or the disk is full.
    """
    tell = progress or silent
    finished = finished_domain(source.roots, out, plan.overwrite)
    if finished is not None:
        require_equal(out, finished, plan.config, source.inputs(), plan.earlier)
    rejects = Rejects(plan.bad_rows, most=MOST_LISTED)
    with storage.room(out.parent, FULL), storage.scratch(out) as work:
        log, selected = _select(source, plan, work, rejects, tell)
        rule = choose_split(plan.split, selected.timestamps, log["time"])
        catalogue = source.read_items(selected.item_ids, plan.keep_untaken, rejects, tell)
        rejects.settle(BadTable)
        references = _references(catalogue.pictures)
        root = source.picture_root
        if finished is not None:
            digests = hash_images(root, references, plan.max_image_pixels)
            require_equal(
                out, finished, plan.config, _inputs(source, catalogue, digests), plan.earlier
            )
            return finished
        with storage.new_folder(out) as folder:
            stored = store_images(
                root,
                references,
                folder,
                max_pixels=plan.max_image_pixels,
                progress=lambda done, total: tell("check images", done, total),
            )
            table = _pictured(catalogue, stored, rejects)
            rejects.settle(BadImage)
            digests = {reference: picture.digest for reference, picture in stored.items()}
            places = catalogue.places[selected.items].astype(np.int32)
            return write_domain(
                folder,
                name=plan.name,
                items=table,
                user_ids=_plain(selected.user_ids),
                interactions=interactions_table(
                    selected.users, places, selected.timestamps, selected.extra
                ),
                config=plan.config,
                inputs=_inputs(source, catalogue, digests),
                facts={
                    "source": plan.source,
                    "licence": plan.licence,
                    "read": {"items": catalogue.read, "interactions": log["rows"]},
                    "rejected": rejects.counts(),
                    "filter": _filter_facts(plan, selected, catalogue),
                    "duplicate_events": count_repeats(
                        selected.users, selected.items, selected.timestamps
                    ).events,
                    "look_alike_ids": {
                        "items": catalogue.look_alikes,
                        "users": count_look_alikes(selected.user_ids),
                    },
                    "time": {**log["time"], "unsorted": selected.unsorted},
                    **{key: log[key] for key in ("events",) if key in log},
                    "split": counts_of(selected.users, places, selected.timestamps, rule),
                    "items": catalogue.facts,
                    "interaction_columns": log["columns"],
                    **source.further_facts(selected),
                },
                rejected=rejects.table().to_arrow(),
                split=rule,
            )


def interactions_table(
    users: npt.NDArray[np.int32],
    items: npt.NDArray[np.int32],
    timestamps: npt.NDArray[np.int64],
    further: pl.DataFrame,
) -> pa.Table:
    """The interactions of a domain, and their further columns, as they are stored. All (n,)."""
    log = pl.DataFrame({"user": users, "item": items, "timestamp": timestamps})
    return log.hstack(further.get_columns()).to_arrow()


def counts_of(
    users: npt.NDArray[np.int32],
    items: npt.NDArray[np.int32],
    timestamps: npt.NDArray[np.int64],
    rule: SplitRule,
) -> dict[str, int]:
    """What a rule makes of a sorted log, for the manifest. Shapes: all (n,)."""
    offsets = np.concatenate([[0], np.cumsum(np.bincount(users))]).astype(np.int64)
    return split_counts(divide(offsets, items, timestamps, rule), len(items))


def _select(
    source: Source, plan: Plan, work: Path, rejects: Rejects, tell: Progress
) -> tuple[dict[str, Any], Selected]:
    """Facts of the log, and what the filter leaves of it."""
    for name in ("events", "parts"):
        (work / name).mkdir()
    store = EventStore(work / "events")
    log = source.read_log(store, work / "parts", rejects, tell)
    rejects.settle(BadTable)
    if not len(store) and rejects.counts():
        raise EmptyDomain(
            f"there is no interaction that can be used. {rejects.in_words()}; see the first of "
            "them without --bad-rows reject (options.bad_rows)"
        )
    tell("filter", 0, 1)
    selected = store.select(plan.k_core, plan.repeats)
    store.clear()
    tell("filter", 1, 1)
    return log, selected


def _filter_facts(plan: Plan, selected: Selected, catalogue: Catalogue) -> dict[str, Any]:
    """What the filter removed; an item that nobody took may stay, or goes for that alone."""
    facts, stay = selected.facts, plan.keep_untaken
    untaken = 0 if catalogue.known is None else catalogue.known - selected.items_seen
    return {
        **facts,
        "items_removed": 0 if stay else facts["items_removed"],
        "untaken_items_removed": 0 if stay else max(0, untaken),
        "untaken_items_kept": catalogue.table.num_rows - len(selected.item_ids),
    }


def _references(pictures: Pictures | None) -> list[str]:
    named = pictures.references if pictures is not None else []
    return sorted({reference for reference in named if reference is not None})


def _inputs(source: Source, catalogue: Catalogue, digests: dict[str, str]) -> dict[str, str]:
    with_images = {} if catalogue.pictures is None else {"images": fingerprint(digests)}
    return {**source.inputs(), **with_images}


def _pictured(catalogue: Catalogue, stored: dict[str, Stored], rejects: Rejects) -> pa.Table:
    """The items with their stored pictures; an item with a bad picture stays without it."""
    if catalogue.pictures is None:
        return catalogue.table
    ids: Sequence[str] = catalogue.table.column("item_id").to_pylist()
    images: list[str | None] = []
    pictures = catalogue.pictures
    for item_id, reference, file, row in zip(ids, *pictures, strict=True):
        found = stored[reference] if reference is not None else Stored("", None, None)
        if found.problem is not None:
            detail = f"{reference} {found.problem}"
            rejects.add(file, int(row), "bad image", item_id=item_id, detail=detail)
        images.append(found.path)
    place = catalogue.table.column_names.index("image")
    return catalogue.table.set_column(place, "image", pa.array(images, pa.string()))


def _plain(ids: pl.Series) -> pa.Array:
    return ids.to_arrow(compat_level=pl.CompatLevel.oldest()).cast("string")
