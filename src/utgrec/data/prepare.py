"""From a shop's plain tables to a domain folder: read, check, filter, render, write.

A source is a folder with a table of items, a table of interactions and perhaps pictures. The
result does not depend on the file format of the tables, nor on the order of the interactions
(rows of one user with equal times keep their order).
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from utgrec import storage
from utgrec.catalog import DOMAIN_MANIFEST, SplitRule, write_domain
from utgrec.config import fingerprint
from utgrec.data.exact import exact_items
from utgrec.data.finished import finished_domain, require_equal
from utgrec.data.images import Stored, hash_images, store_images
from utgrec.data.items import Items, read_items
from utgrec.data.kcore import k_core
from utgrec.data.log import Log, read_log
from utgrec.data.look_alikes import count_look_alikes
from utgrec.data.options import TableOptions as TableOptions
from utgrec.data.options import settings_of
from utgrec.data.rejects import Rejects
from utgrec.data.split import divide
from utgrec.data.splitting import choose_split, split_counts
from utgrec.data.summary import count_repeats
from utgrec.data.table import read_tables
from utgrec.data.table_files import INTERACTION_NAMES, ITEM_NAMES, find_tables
from utgrec.errors import BadImage, BadTable, EmptyDomain
from utgrec.progress import Progress, silent


class Selection(NamedTuple):
    """What the filter left of a log over N items."""

    log: Log  # of the users that are left; items still counted in the source
    chosen: npt.NDArray[np.int64]  # (items left,), indices in the source, ascending
    facts: dict[str, Any]


class Source(NamedTuple):
    """Anything that a domain can be made from."""

    root: Path  # where pictures are looked for, and where `out` must not be
    inputs: dict[str, str]  # name of each file → hash of its bytes
    read_items: Callable[[Rejects], Items]
    read_log: Callable[[list[str], Rejects], Log]


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
    source = Path(source)
    options = name_of(options, source)
    return prepare_source(table_source(source, options), Path(out), options, progress)


def name_of(options: TableOptions, source: Path) -> TableOptions:
    """The options with a name: the source folder's if they have none."""
    return dataclasses.replace(options, name=options.name or source.resolve().name)


def table_source(source: Path, options: TableOptions) -> Source:
    """The tables of a folder.

    Raises:
        BadTable: a table is missing, or several fit.
    """
    if not source.is_dir():
        raise BadTable(f"{source} is no folder; give the folder that holds the tables")
    if (source / DOMAIN_MANIFEST).exists():
        raise BadTable(f"{source} is already a domain folder; use it as it is")
    items = find_tables(source, ITEM_NAMES, options.items_file, "items")
    log = find_tables(source, INTERACTION_NAMES, options.interactions_file, "interactions")

    def read(rejects: Rejects) -> Items:
        if options.exact:
            return exact_items(read_tables(items, rejects), rejects, options.exact_types)
        return read_items(
            items,
            rejects,
            columns=options.columns,
            text_columns=options.text_columns,
            skip_columns=options.skip_columns,
            picture_root=source,
        )

    return Source(
        root=source,
        inputs=hash_inputs(source, [*items, *log]),
        read_items=read,
        read_log=lambda item_ids, rejects: read_log(log, item_ids, rejects, options.log),
    )


def hash_inputs(root: Path, paths: Sequence[Path]) -> dict[str, str]:
    """Path relative to the source folder → hash, for the manifest."""
    return {Path(os.path.relpath(path, root)).as_posix(): storage.hash_file(path) for path in paths}


def prepare_source(
    source: Source, out: Path, options: TableOptions, progress: Progress | None = None
) -> storage.Manifest:
    """Make the domain folder `out` from any source; otherwise like `prepare_table`."""
    tell = progress or silent
    config = settings_of(options)
    earlier = settings_of(TableOptions())
    finished = finished_domain([source.root], out, options.overwrite)
    if finished is not None:
        require_equal(out, finished, config, source.inputs, earlier)

    rejects = Rejects(options.bad_rows)
    tell("read items", 0, 1)
    items = source.read_items(rejects)
    rejects.settle(BadTable)
    tell("read items", 1, 1)
    tell("read interactions", 0, 1)
    log = source.read_log(items.ids, rejects)
    rejects.settle(BadTable)
    tell("read interactions", 1, 1)
    left = select(log, len(items.ids), options.k_core, options.keeps_untaken_items)
    rule, split_facts = _split(options, left.log)
    pictures = [items.pictures[index] for index in left.chosen]
    references = sorted({picture for picture in pictures if picture is not None})

    if finished is not None:
        digests = hash_images(source.root, references, options.max_image_pixels)
        require_equal(out, finished, config, _with_images(source.inputs, digests), earlier)
        return finished

    with storage.new_folder(out) as folder:
        stored = store_images(
            source.root,
            references,
            folder,
            max_pixels=options.max_image_pixels,
            progress=lambda done, total: tell("check images", done, total),
        )
        images = _images(items, left.chosen, pictures, stored, rejects)
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
                    **{name: column.to_arrow() for name, column in left.log.extra.items()},
                }
            ),
            config=config,
            inputs=_with_images(source.inputs, digests),
            facts={
                "source": options.source,
                "licence": options.licence,
                "read": {"items": len(items.ids), "interactions": log.facts["rows"]},
                "rejected": rejects.counts(),
                "filter": left.facts,
                "duplicate_events": count_repeats(
                    left.log.users, left.log.items, left.log.timestamps
                ).events,
                "look_alike_ids": {
                    "items": count_look_alikes(items.ids),
                    "users": count_look_alikes(log.user_ids),
                },
                "time": log.facts["time"],
                **{key: log.facts[key] for key in ("events",) if key in log.facts},
                "split": split_facts,
                "items": items.facts,
                "interaction_columns": log.facts["columns"],
            },
            rejected=rejects.table().to_arrow(),
            split=rule,
        )


def _split(options: TableOptions, log: Log) -> tuple[SplitRule, dict[str, int]]:
    """The rule for what the filters left, and what it makes of it."""
    rule = choose_split(options.split, log.timestamps, log.facts["time"])
    return rule, counts_of(log, rule)


def counts_of(log: Log, rule: SplitRule) -> dict[str, int]:
    """What a rule makes of a log, for the manifest."""
    lengths = np.bincount(log.users, minlength=len(log.user_ids))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return split_counts(divide(offsets, log.items, log.timestamps, rule), len(log.items))


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
        extra={name: column.filter(core.keep) for name, column in log.extra.items()},
    )
    return Selection(kept, chosen, facts)


def _with_images(inputs: dict[str, str], digests: dict[str, str]) -> dict[str, str]:
    return {**inputs, "images": fingerprint(digests)}


def _images(
    items: Items,
    chosen: npt.NDArray[np.int64],
    pictures: Sequence[str | None],
    stored: dict[str, Stored],
    rejects: Rejects,
) -> list[str | None]:
    """The stored picture of every chosen item; an item with a bad picture stays without it."""
    images: list[str | None] = []
    for index, picture in zip(chosen, pictures, strict=True):
        found = stored[picture] if picture is not None else Stored("", None, None)
        if found.problem is not None:
            rejects.add(
                items.files[index],
                int(items.rows[index]),
                "bad image",
                item_id=items.ids[index],
                detail=f"{picture} {found.problem}",
            )
        images.append(found.path)
    return images
