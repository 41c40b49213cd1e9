"""`utgrec clean`: a new domain without what the named options say; every dropped row is told.

Only interactions and items are dropped; both go to `rejected.parquet` with file, row and reason.
The k-core is applied again afterwards, and counted as in a preparation.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from utgrec import storage
from utgrec.catalog import Domain, write_domain
from utgrec.config import require, to_dict
from utgrec.data.cleaning import texts as looks
from utgrec.data.cleaning.events import Mask, in_bursts, of_fast_users, repeated
from utgrec.data.cleaning.findings import categories_of, events_of, has_real_times
from utgrec.data.derived import find_derived, further_columns, link_pictures
from utgrec.data.log import Log
from utgrec.data.prepare import counts_of, select
from utgrec.data.rejects import SCHEMA
from utgrec.errors import BadConfig, EmptyDomain

ITEMS, EVENTS = "items.parquet", "interactions.parquet"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CleanOptions:
    """What is changed; by default nothing."""

    drop_duplicate_events: bool = False
    """Interactions that repeat an earlier one of the same user, item and time."""
    drop_bursts: int | None = None
    """Interactions that one user made in one second, if there are at least so many of them."""
    drop_fast_users: int | None = None
    """All interactions of users who made more than so many in some hour."""
    drop_empty_text: bool = False
    """Items whose text is empty or says nothing ("N/A"), and their interactions."""
    drop_boilerplate: bool = False
    """Sentences that very many items share, from the items' texts."""
    drop_shared_images: int | None = None
    """Pictures that at least so many items have; the items stay, without a picture."""
    strip_html: bool = False
    """HTML tags and entities, from titles and texts."""
    fix_mojibake: bool = False
    """Put titles and texts right that were decoded wrongly."""
    k_core: int | None = None
    """Users and items with fewer interactions are removed afterwards; None = as in the source."""

    def __post_init__(self) -> None:
        for name, least in (("drop_bursts", 2), ("drop_fast_users", 1), ("drop_shared_images", 2)):
            value = getattr(self, name)
            require(value is None or value >= least, f"{name} is {value}; it must be ≥ {least}")
        require(self.k_core is None or self.k_core >= 1, f"k_core is {self.k_core}; it must be ≥ 1")


class Texts(NamedTuple):
    """The catalogue with its texts put right, and how many items that changed, by option."""

    table: pa.Table
    changed: dict[str, int]


def clean_domain(source: Path, out: Path, options: CleanOptions) -> storage.Manifest:
    """Write a cleaned copy of a domain; a finished one made from the same is left as it is.

    Raises:
        BadConfig: no option is set, or one needs real times and the log has none.
        EmptyDomain: nothing is left.
        SettingsMismatch, StorageError: `out` is something else.
    """
    require(options != CleanOptions(k_core=options.k_core), "name at least one thing to clean")
    domain = Domain.open(source)
    facts = domain.manifest.facts if domain.manifest is not None else {}
    before = facts.get("filter", {})
    k = options.k_core or int(before.get("k_core", 1))
    config = {**to_dict(options), "k_core": k}
    inputs = {f"domain {domain.name}": domain.fingerprint}
    found = find_derived(source, out, config, inputs)
    if found is not None:
        return found
    texts = _texts(domain, options)
    bad_items = _bad_items(texts.table, options)  # (N,)
    reasons = _bad_events(domain, bad_items, options)  # reason → (I,)
    dropped = np.zeros(domain.interaction_count, dtype=np.bool_)
    for mask in reasons.values():
        dropped |= mask
    events = events_of(domain)
    kept = Log(
        user_ids=domain.user_ids,
        users=events.users[~dropped].astype(np.int32),
        items=events.items[~dropped],
        timestamps=events.times[~dropped],
        facts={},
        extra=further_columns(source, ~dropped),
    )
    # Items that nobody took stay, if the source kept them; dropped ones never do.
    keep_untaken = bool(before.get("untaken_items_kept", 0)) or k == 1
    left = select(kept, len(domain.catalog), k, keep_untaken)
    chosen = left.chosen[~bad_items[left.chosen]]
    if not len(chosen):
        raise EmptyDomain("no item is left; clean with fewer options")
    table, unpictured = _pictures(texts.table.take(chosen), options.drop_shared_images)
    rejected = _rejected(source, domain, bad_items, reasons)
    with storage.new_folder(out) as folder:
        link_pictures(domain, folder, table.column("image").to_pylist())
        return write_domain(
            folder,
            name=domain.name,
            items=table,
            user_ids=left.log.user_ids,
            interactions=pa.table(
                {
                    "user": left.log.users,
                    "item": np.searchsorted(chosen, left.log.items).astype(np.int32),
                    "timestamp": left.log.timestamps,
                    **{name: column.to_arrow() for name, column in left.log.extra.items()},
                }
            ),
            config=config,
            inputs=inputs,
            split=domain.split,
            facts={
                **{name: value for name, value in facts.items() if name not in ("name", "counts")},
                "split": counts_of(left.log, domain.split),
                "rejected": dict(sorted(rejected["reason"].value_counts().rows())),
                "filter": left.facts,
                "duplicate_events": int(repeated(_again(left.log)).sum()),
                "cleaned": {
                    "changed_texts": texts.changed,
                    "pictures_taken_away": unpictured,
                    "items_dropped": int(bad_items.sum()),
                    "interactions_dropped": int(dropped.sum()),
                },
            },
            rejected=rejected.to_arrow(),
        )


def _texts(domain: Domain, options: CleanOptions) -> Texts:
    """Titles and texts after the options that change texts, in a fixed order."""
    table = domain.catalog.table
    columns = {name: pl.Series(table.column(name).to_pylist(), dtype=pl.String) for name in _TOLD}
    changed = {}
    if options.fix_mojibake:
        changed["fix_mojibake"] = _apply(columns, looks.has_mojibake, looks.repair)
    if options.strip_html:
        changed["strip_html"] = _apply(columns, looks.has_markup, looks.without_markup)
    if options.drop_boilerplate:
        sentences = frozenset(
            looks.boilerplate(columns["text"], categories_of(table))["sentence"].to_list()
        )
        plain = columns["text"].fill_null("").to_list()
        shorter = [looks.without_sentences(text, sentences) for text in plain]
        changed["drop_boilerplate"] = sum(a != b for a, b in zip(plain, shorter, strict=True))
        columns["text"] = pl.Series(shorter, dtype=pl.String)
    for name, column in columns.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(column.to_list(), pa.string()))
    return Texts(table, changed)


_TOLD = ("title", "text")


def _apply(columns: dict[str, pl.Series], wrong: Any, right: Any) -> int:
    """Put the wrong texts of every column right; the number of items that changed."""
    touched = np.zeros(len(columns["text"]), dtype=np.bool_)
    for name, column in columns.items():
        flags = wrong(column).to_numpy()
        columns[name] = pl.Series(
            [
                right(text) if flag and text is not None else text
                for text, flag in zip(column, flags, strict=True)
            ],
            dtype=pl.String,
        )
        touched |= flags
    return int(touched.sum())


def _bad_items(table: pa.Table, options: CleanOptions) -> Mask:
    texts = pl.Series(table.column("text").to_pylist(), dtype=pl.String)
    if not options.drop_empty_text:
        return np.zeros(len(texts), dtype=np.bool_)
    return looks.says_nothing(texts).to_numpy().copy()


def _bad_events(domain: Domain, bad_items: Mask, options: CleanOptions) -> dict[str, Mask]:
    """Dropped interactions by reason; one that has several counts under the first."""
    if (options.drop_bursts or options.drop_fast_users) and not has_real_times(domain):
        raise BadConfig(
            f"the times of {domain.name} are positions, not points in time: --drop-bursts and "
            "--drop-fast-users have nothing to go by; leave them out"
        )
    events = events_of(domain)
    found: dict[str, Mask] = {}
    if options.drop_empty_text:
        found["item without text"] = bad_items[events.items]
    if options.drop_duplicate_events:
        found["duplicate event"] = repeated(events)
    if options.drop_bursts is not None:
        found["burst within a second"] = in_bursts(events, options.drop_bursts)
    if options.drop_fast_users is not None:
        found["user too fast"] = of_fast_users(events, options.drop_fast_users)
    earlier = np.zeros(domain.interaction_count, dtype=np.bool_)
    for reason, mask in found.items():
        found[reason] = mask & ~earlier
        earlier |= mask
    return found


def _pictures(table: pa.Table, most: int | None) -> tuple[pa.Table, int]:
    """The items without pictures that too many of them have; how many lost theirs."""
    images = table.column("image").to_pylist()
    frequent = {} if most is None else looks.shared(images, most)
    kept = [None if image in frequent else image for image in images]
    place = table.column_names.index("image")
    table = table.set_column(place, "image", pa.array(kept, pa.string()))
    return table, sum(frequent.values())


def _rejected(
    source: Path, domain: Domain, bad_items: Mask, reasons: dict[str, Mask]
) -> pl.DataFrame:
    """What the source had set aside, and what was dropped now."""
    frames = []
    earlier = source / "rejected.parquet"
    if earlier.is_file():
        old = pl.DataFrame(pq.read_table(earlier).to_pydict(), schema=SCHEMA)
        frames.append(old)
    ids = np.array(domain.catalog.item_ids, dtype=object)
    users = np.array(domain.user_ids, dtype=object)
    events = events_of(domain)
    places: npt.NDArray[np.int64] = np.flatnonzero(bad_items)
    texts = domain.catalog.texts
    frames.append(
        _frame(
            ITEMS,
            places,
            "text is empty or says nothing",
            ids[places],
            None,
            [texts[place][:100] for place in places],
        )
    )
    for reason, mask in reasons.items():
        places = np.flatnonzero(mask)
        frames.append(
            _frame(
                EVENTS,
                places,
                reason,
                ids[events.items[places]],
                users[events.users[places]],
                events.times[places].astype(str).tolist(),
            )
        )
    return pl.concat(frames)


def _frame(
    file: str, places: Any, reason: str, item_ids: Any, user_ids: Any, details: list[str]
) -> pl.DataFrame:
    count = len(places)
    return pl.DataFrame(
        {
            "file": [file] * count,
            "row": places + 1,
            "reason": [reason] * count,
            "item_id": list(item_ids),
            "user_id": [None] * count if user_ids is None else list(user_ids),
            "detail": details,
        },
        schema=SCHEMA,
    )


def _again(log: Log) -> Any:
    from utgrec.data.cleaning.events import Events

    return Events(log.users.astype(np.int64), log.items, log.timestamps)
