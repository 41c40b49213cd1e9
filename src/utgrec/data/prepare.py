"""From a shop's plain tables to a domain folder: read, check, filter, render, write.

A source is a folder with a table of items, a table of interactions and perhaps pictures. The
result does not depend on the file format of the tables, nor on the order of the interactions
(rows of one user with equal times keep their order).
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from utgrec import storage
from utgrec.catalog import DOMAIN_MANIFEST, write_domain
from utgrec.config import fingerprint, require, to_dict
from utgrec.data.columns import ROLES
from utgrec.data.finished import finished_domain, require_equal
from utgrec.data.images import PILLOW_LIMIT, Stored, hash_images, store_images
from utgrec.data.items import Items, read_items
from utgrec.data.kcore import k_core
from utgrec.data.log import Log, read_log
from utgrec.data.rejects import BadRows, Rejects
from utgrec.data.summary import count_repeats
from utgrec.data.table import INTERACTION_NAMES, ITEM_NAMES, find_table
from utgrec.data.times import TimeUnit
from utgrec.errors import BadImage, BadTable, EmptyDomain
from utgrec.progress import Progress, silent


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableOptions:
    """How plain tables become a domain."""

    name: str = ""
    """Name of the domain; empty = the name of the source folder."""
    items_file: str | None = None
    """Table of items, relative to the source folder; None = found by its usual names."""
    interactions_file: str | None = None
    """Table of interactions, relative to the source folder; None = found by its usual names."""
    columns: dict[str, str] = dataclasses.field(default_factory=dict)
    """Role → column name, where the usual names do not fit; "" = no column has this role.
    Items: item_id, title, brand, categories, features, description, price, image, text.
    Interactions: user, item, timestamp."""
    text_columns: tuple[str, ...] | None = None
    """Further item columns that belong into the sentence; None = all that hold words to read."""
    skip_columns: tuple[str, ...] = ()
    """Item columns that are left out altogether."""
    time_unit: TimeUnit = "auto"
    """Unit of the times: s, ms, us, ns or position; row = the order of the rows is the time;
    auto = by the size of the numbers (utgrec.data.times)."""
    k_core: int = 5
    """Users and items with fewer interactions are removed, again and again; 1 = none."""
    keep_untaken_items: bool | None = None
    """Whether items without interactions stay in the catalogue; None = they stay if k_core is 1."""
    max_image_pixels: int = 40_000_000
    """A picture with more pixels (width × height) is refused."""
    bad_rows: BadRows = "error"
    """What to do with rows that cannot be used: error = stop; reject = set them aside."""
    source: str = ""
    """Where the data come from, in words."""
    licence: str = ""
    """Terms of use of the data, in words."""
    overwrite: bool = False
    """Replace a domain that was made with other settings. Not part of the settings recorded."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.columns) - set(ROLES))
        require(not unknown, f"columns: no role {', '.join(unknown)}; roles: {', '.join(ROLES)}")
        require(self.k_core >= 1, f"k_core is {self.k_core}; it must be 1 (no filter) or more")
        require(
            1 <= self.max_image_pixels <= PILLOW_LIMIT,
            f"max_image_pixels is {self.max_image_pixels}; it must be 1 … {PILLOW_LIMIT}",
        )
        for setting, values in (("bad_rows", BadRows), ("time_unit", TimeUnit)):
            value, allowed = getattr(self, setting), get_args(values)
            require(value in allowed, f"{setting} is {value!r}; it is one of {', '.join(allowed)}")

    @property
    def keeps_untaken_items(self) -> bool:
        """Whether items without interactions stay in the catalogue."""
        return self.k_core == 1 if self.keep_untaken_items is None else self.keep_untaken_items


class Selection(NamedTuple):
    """What the filter left of a log over N items."""

    log: Log  # of the users that are left; items still counted in the source
    chosen: npt.NDArray[np.int64]  # (items left,), indices in the source, ascending
    facts: dict[str, Any]


def prepare_table(
    source: Path, out: Path, options: TableOptions, progress: Progress | None = None
) -> storage.Manifest:
    """Make the domain folder `out` from the tables and pictures in `source`.

    Nothing is left behind if it fails. A finished domain with equal settings and equal input is
    returned as it is.

    Raises:
        BadTable, BadImage: the first row or picture that cannot be used (bad_rows="error").
        EmptyDomain: nothing is left after the filters.
        SettingsMismatch: `out` is a domain made with other settings or from other input.
        StorageError: `out` exists and is no domain folder.
    """
    source, out, tell = Path(source), Path(out), progress or silent
    options = dataclasses.replace(options, name=options.name or source.resolve().name)
    items_path, log_path = _tables(source, options)
    config = to_dict(options)
    del config["overwrite"]
    inputs = {
        Path(os.path.relpath(path, source)).as_posix(): storage.hash_file(path)
        for path in (items_path, log_path)
    }
    finished = finished_domain([source], out, options.overwrite)
    if finished is not None:
        require_equal(out, finished, config, inputs)

    rejects = Rejects(options.bad_rows)
    tell("read items", 0, 1)
    items = read_items(
        items_path,
        rejects,
        columns=options.columns,
        text_columns=options.text_columns,
        skip_columns=options.skip_columns,
        picture_root=source,
    )
    rejects.settle(BadTable)
    tell("read items", 1, 1)
    tell("read interactions", 0, 1)
    log = read_log(
        log_path, items.ids, rejects, columns=options.columns, time_unit=options.time_unit
    )
    rejects.settle(BadTable)
    tell("read interactions", 1, 1)
    left = select(log, len(items.ids), options.k_core, options.keeps_untaken_items)
    pictures = [items.pictures[index] for index in left.chosen]
    references = sorted({picture for picture in pictures if picture is not None})

    if finished is not None:
        digests = hash_images(source, references, options.max_image_pixels)
        require_equal(out, finished, config, _with_images(inputs, digests))
        return finished

    with storage.new_folder(out) as folder:
        stored = store_images(
            source,
            references,
            folder,
            max_pixels=options.max_image_pixels,
            progress=lambda done, total: tell("check images", done, total),
        )
        images = _images(items, left.chosen, pictures, stored, items_path.name, rejects)
        rejects.settle(BadImage)
        digests = {reference: picture.digest for reference, picture in stored.items()}
        return write_domain(
            folder,
            name=options.name,
            items=items.table(left.chosen, images),
            user_ids=left.log.user_ids,
            interactions=pa.table(
                {
                    "user": left.log.users,
                    "item": np.searchsorted(left.chosen, left.log.items).astype(np.int32),
                    "timestamp": left.log.timestamps,
                }
            ),
            config=config,
            inputs=_with_images(inputs, digests),
            facts={
                "source": options.source,
                "licence": options.licence,
                "read": {"items": len(items.ids), "interactions": log.facts["rows"]},
                "rejected": rejects.counts(),
                "filter": left.facts,
                "duplicate_events": count_repeats(
                    left.log.users, left.log.items, left.log.timestamps
                ).events,
                "time": log.facts["time"],
                "items": items.facts,
                "interaction_columns": log.facts["columns"],
            },
            rejected=rejects.table().to_arrow(),
        )


def select(log: Log, item_count: int, k: int, keep_untaken: bool) -> Selection:
    """Apply the k-core and drop untaken items; users and items are counted anew.

    Raises:
        EmptyDomain: no interaction is left.
    """
    if not len(log.users):
        raise EmptyDomain("the log holds no interaction that can be used; check its file")
    core = k_core(log.users, log.items, k)
    if not core.keep.any():
        raise EmptyDomain(
            f"no interaction is left: {len(log.users)} interactions of {len(log.user_ids)} users "
            f"hold no user and item with {k} interactions each; lower --k-core (1 = no filter)"
        )
    users, renumbered = np.unique(log.users[core.keep], return_inverse=True)
    taken = np.unique(log.items[core.keep]).astype(np.int64)
    chosen = np.arange(item_count, dtype=np.int64) if keep_untaken else taken
    before = len(np.unique(log.items))
    facts = {
        "k_core": k,
        "rounds": core.rounds,
        "users_removed": len(log.user_ids) - len(users),
        "interactions_removed": int((~core.keep).sum()),
        "items_removed": 0 if keep_untaken else before - len(taken),
        "untaken_items_removed": 0 if keep_untaken else item_count - before,
        "untaken_items_kept": len(chosen) - len(taken),
    }
    kept = Log(
        user_ids=[log.user_ids[user] for user in users],
        users=renumbered.astype(np.int32),
        items=log.items[core.keep],
        timestamps=log.timestamps[core.keep],
        facts=log.facts,
    )
    return Selection(kept, chosen, facts)


def _tables(source: Path, options: TableOptions) -> tuple[Path, Path]:
    if not source.is_dir():
        raise BadTable(f"{source} is no folder; give the folder that holds the tables")
    if (source / DOMAIN_MANIFEST).exists():
        raise BadTable(f"{source} is already a domain folder; use it as it is")
    items = find_table(source, ITEM_NAMES, options.items_file, "items")
    log = find_table(source, INTERACTION_NAMES, options.interactions_file, "interactions")
    return items, log


def _with_images(inputs: dict[str, str], digests: dict[str, str]) -> dict[str, str]:
    return {**inputs, "images": fingerprint(digests)}


def _images(
    items: Items,
    chosen: npt.NDArray[np.int64],
    pictures: Sequence[str | None],
    stored: dict[str, Stored],
    file: str,
    rejects: Rejects,
) -> list[str | None]:
    """The stored picture of every chosen item; an item with a bad picture stays without it."""
    images: list[str | None] = []
    for index, picture in zip(chosen, pictures, strict=True):
        found = stored[picture] if picture is not None else Stored("", None, None)
        if found.problem is not None:
            rejects.add(
                file,
                int(items.rows[index]),
                "bad image",
                item_id=items.ids[index],
                detail=f"{picture} {found.problem}",
            )
        images.append(found.path)
    return images
