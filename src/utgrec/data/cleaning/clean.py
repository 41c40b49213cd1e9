"""`utgrec clean`: a new domain without what the named options say; every dropped row is told.

Only interactions and items are dropped; both go to `rejected.parquet` with file, row and reason.
The k-core is applied again afterwards, and counted as in a preparation.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable
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
from utgrec.data.cleaning.findings import (
    categories_of,
    events_of,
    has_real_times,
    text_column,
)
from utgrec.data.derived import derived_from, find_derived, further_columns, link_pictures
from utgrec.data.kcore import require_core
from utgrec.data.pipeline import counts_of, interactions_table
from utgrec.data.rejects import MOST_LISTED, SCHEMA, Rejects
from utgrec.data.summary import count_repeats
from utgrec.errors import BadConfig

FULL = "nothing was left behind: make room and run it again"
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


class _Outside(NamedTuple):
    """What the k-core removes after the cleaning."""

    events: npt.NDArray[np.int64]  # rows of the source's interactions
    items: npt.NDArray[np.int64]  # rows of its items


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
    inputs = derived_from(domain)
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
    stay = np.flatnonzero(~dropped)
    core = require_core(events.users[stay], events.items[stay], k, domain.interaction_count)
    # Items that nobody took stay, if the source kept them; dropped ones never do.
    keep_untaken = bool(before.get("untaken_items_kept", 0)) or k == 1
    chosen = np.arange(len(domain.catalog)) if keep_untaken else core.item_numbers
    chosen = chosen[~bad_items[chosen]]
    outside = _Outside(
        events=stay[np.setdiff1d(np.arange(len(stay)), core.kept, assume_unique=True)],
        items=np.setdiff1d(np.flatnonzero(~bad_items), chosen, assume_unique=True),
    )
    table, unpictured = _pictures(texts.table.take(chosen), options.drop_shared_images)
    rejects = _rejects(source, domain, bad_items, reasons, outside, k)
    places = np.searchsorted(chosen, core.item_numbers)[core.items].astype(np.int32)
    times = events.times[stay[core.kept]]
    further = further_columns(source, stay[core.kept])
    with storage.room(out.parent, FULL), storage.new_folder(out) as folder:
        link_pictures(domain, folder, table.column("image").to_pylist())
        return write_domain(
            folder,
            name=domain.name,
            items=table,
            user_ids=[domain.user_ids[user] for user in core.user_numbers],
            interactions=interactions_table(core.users, places, times, further),
            config=config,
            inputs=inputs,
            split=domain.split,
            facts={
                **{name: value for name, value in facts.items() if name not in ("name", "counts")},
                "split": counts_of(core.users, places, times, domain.split),
                "rejected": rejects.counts(),
                "filter": {
                    "k_core": k,
                    "rounds": core.rounds,
                    "users_removed": domain.user_count - len(core.user_numbers),
                    "interactions_removed": len(outside.events),
                    "items_removed": len(outside.items),
                    "untaken_items_kept": len(chosen) - len(core.item_numbers),
                },
                "duplicate_events": count_repeats(core.users, places, times).events,
                "cleaned": {
                    "changed_texts": texts.changed,
                    "pictures_taken_away": unpictured,
                    "items_dropped": int(bad_items.sum()),
                    "interactions_dropped": int(dropped.sum()),
                },
            },
            rejected=rejects.table().to_arrow(),
        )


def _texts(domain: Domain, options: CleanOptions) -> Texts:
    """Titles and texts after the options that change texts, in a fixed order."""
    table = domain.catalog.table
    columns = {name: text_column(table, name) for name in _TOLD}
    changed = {}
    if options.fix_mojibake:
        changed["fix_mojibake"] = _apply(columns, looks.has_mojibake, looks.repair)
    if options.strip_html:
        changed["strip_html"] = _apply(columns, looks.has_markup, looks.without_markup)
    if options.drop_boilerplate:
        sentences = frozenset(
            looks.boilerplate(columns["text"], categories_of(table))["sentence"].to_list()
        )
        plain = columns["text"].fill_null("")
        shorter = looks.changed(
            plain, plain != "", lambda text: looks.without_sentences(text, sentences)
        )
        changed["drop_boilerplate"] = int((plain != shorter).sum())
        columns["text"] = shorter
    for name, column in columns.items():
        table = _replace(table, name, column)
    return Texts(table, changed)


def _replace(table: pa.Table, name: str, column: pl.Series) -> pa.Table:
    """The table with other texts in one column."""
    arrow = column.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.string())
    return table.set_column(table.column_names.index(name), name, arrow)


_TOLD = ("title", "text")


def _apply(columns: dict[str, pl.Series], wrong: Any, right: Any) -> int:
    """Put the wrong texts of every column right; the number of items that changed."""
    touched = np.zeros(len(columns["text"]), dtype=np.bool_)
    for name, column in columns.items():
        flags = wrong(column)
        columns[name] = looks.changed(column, flags, right)
        touched |= flags.to_numpy()
    return int(touched.sum())


def _bad_items(table: pa.Table, options: CleanOptions) -> Mask:
    if not options.drop_empty_text:
        return np.zeros(table.num_rows, dtype=np.bool_)
    return looks.says_nothing(text_column(table, "text")).to_numpy().copy()


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
    frequent = {} if most is None else looks.shared(text_column(table, "image"), most)
    images = text_column(table, "image")
    kept = images.scatter(images.is_in(sorted(frequent)).arg_true(), None)
    return _replace(table, "image", kept), sum(frequent.values())


def _rejects(
    source: Path,
    domain: Domain,
    bad_items: Mask,
    reasons: dict[str, Mask],
    outside: _Outside,
    k: int,
) -> Rejects:
    """What the source had set aside, what was dropped now, and what the k-core removed then."""
    rejects = Rejects("reject", most=MOST_LISTED)
    facts = domain.manifest.facts if domain.manifest is not None else {}
    earlier = Counter(facts.get("rejected", {}))
    listed = source / "rejected.parquet"
    if listed.is_file():
        old = pl.DataFrame(pl.from_arrow(pq.read_table(listed)))
        rejects.add_frame(old)
        earlier.subtract(dict(old.group_by("reason").len().iter_rows()))
    rejects.add_counts(+earlier)
    ids, texts = domain.catalog.item_ids, domain.catalog.table.column("text")

    def add(file: str, reason: str, places: npt.NDArray[np.int64], row: _Row) -> None:
        shown = places[:MOST_LISTED]
        rows = [(file, int(place) + 1, reason, *row(int(place))) for place in shown]
        rejects.add_frame(pl.DataFrame(rows, schema=SCHEMA, orient="row"))
        if len(places) > len(shown):
            rejects.add_counts({reason: len(places) - len(shown)})

    def event(place: int) -> tuple[str, str, str]:
        user = domain.user_ids[int(np.searchsorted(domain.offsets, place, side="right")) - 1]
        return ids[domain.items[place]], user, str(domain.timestamps[place])

    def told(place: int) -> str:
        return texts[place].as_py() or ""

    nothing = "text is empty or says nothing"
    add(ITEMS, nothing, np.flatnonzero(bad_items), lambda n: (ids[n], None, told(n)[:100]))
    for reason, mask in reasons.items():
        add(EVENTS, reason, np.flatnonzero(mask), event)
    core = f"outside the {k}-core after cleaning"
    add(EVENTS, core, outside.events, event)
    add(ITEMS, f"item {core}", outside.items, lambda n: (ids[n], None, ""))
    return rejects


_Row = Callable[[int], tuple[str, str | None, str]]
"""Row of the source → item, user, detail."""
