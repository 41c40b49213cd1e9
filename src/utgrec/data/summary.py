"""What is in a domain, what was left out and why, and what to look out for."""

import dataclasses
import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from utgrec.catalog import LEAVE_ONE_OUT, Domain
from utgrec.data.cleaning.findings import Findings, find, text_column, warnings_of
from utgrec.data.split import split_domain

if TYPE_CHECKING:
    from rich.console import Group

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
SAMPLES = 5


class Repeats(NamedTuple):
    """How many interactions repeat an earlier one of the same user."""

    events: int  # same item, same time
    items: int  # same item, at any time


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """The distribution of a count."""

    minimum: float
    """Smallest value."""
    lower: float
    """A quarter of the values is not above it."""
    median: float
    """Half of the values is not above it."""
    upper: float
    """Three quarters of the values are not above it."""
    maximum: float
    """Largest value."""
    mean: float
    """Average."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """One item, as the models see it."""

    item_id: str
    """The shop's id."""
    title: str
    """Its title."""
    text: str
    """Its sentence."""
    interactions: int
    """How often it was taken."""
    has_image: bool
    """Whether it has a picture."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DomainSummary:
    """What `utgrec inspect` reports."""

    name: str
    """Name of the domain."""
    source: str
    """Where the data come from."""
    licence: str
    """Terms of use."""
    users: int
    """Users."""
    items: int
    """Items in the catalogue."""
    interactions: int
    """Interactions."""
    untaken_items: int
    """Items without an interaction."""
    split: str
    """How the log is divided, in words."""
    evaluated_users: int
    """Users with a test item."""
    training_interactions: int
    """Interactions that the models may learn from."""
    training_pairs: int
    """Pairs (prefix of a training history, next item) that a recommender learns from."""
    history_length: Spread
    """Interactions per user."""
    item_interactions: Spread
    """Interactions per item of the catalogue."""
    gini: float
    """Inequality of item_interactions: 0 = all items equally often, 1 = one item only."""
    top_tenth_share: float
    """Share of the interactions that the most popular 10 % of the items have."""
    time_unit: str
    """Unit that the source's times had; position or row where it has no real times."""
    first_time: str | None
    """First interaction (ISO 8601, UTC), or None without real times."""
    last_time: str | None
    """Last interaction."""
    tied_share: float
    """Share of the steps within histories whose two interactions have the same time."""
    text_characters: Spread
    """Length of the items' sentences."""
    items_with_text: int
    """Items whose sentence is not empty."""
    items_with_image: int
    """Items with a picture."""
    interactions_with_image: float
    """Share of the interactions whose item has a picture."""
    duplicate_events: int
    """Interactions that repeat an earlier one of the same user, item and time."""
    repeated_items: int
    """Interactions with an item that the user had taken before."""
    rejected: dict[str, int]
    """Rows set aside: reason → count."""
    removed: dict[str, int]
    """What the filters removed."""
    attributes: list[str]
    """Columns for filters and display."""
    findings: Findings
    """What is suspicious in the data, counted (utgrec.data.cleaning)."""
    samples: list[Sample]
    """Items spread evenly over the catalogue."""
    warnings: list[str]
    """What to look out for."""


def summarise(domain: Domain) -> DomainSummary:
    """Count everything that a person wants to know before training."""
    facts = domain.manifest.facts if domain.manifest is not None else {}
    split = split_domain(domain)
    lengths = np.diff(domain.offsets)
    popularity = np.bincount(domain.items, minlength=len(domain.catalog))
    pictured = ~domain.catalog.table.column("image").is_null().to_numpy()
    text_lengths = text_lengths_of(domain)
    train_lengths = np.diff(split.offsets)
    users = np.repeat(np.arange(domain.user_count), lengths)
    repeats = count_repeats(users, domain.items, domain.timestamps)
    filtered = facts.get("filter", {})
    values: dict[str, Any] = {
        "name": domain.name,
        "source": facts.get("source", ""),
        "licence": facts.get("licence", ""),
        "users": domain.user_count,
        "items": len(domain.catalog),
        "interactions": domain.interaction_count,
        "untaken_items": int((popularity == 0).sum()),
        "split": domain.split.words,
        "evaluated_users": len(split.evaluated),
        "training_interactions": len(split.train),
        "training_pairs": int(np.maximum(train_lengths - 1, 0).sum()),
        "history_length": _spread(lengths),
        "item_interactions": _spread(popularity),
        "gini": gini(popularity),
        "top_tenth_share": _top_share(popularity, 0.1),
        **_time(domain, facts.get("time", {})),
        "text_characters": _spread(text_lengths),
        "items_with_text": int((text_lengths > 0).sum()),
        "items_with_image": int(pictured.sum()),
        "interactions_with_image": float(pictured[domain.items].mean())
        if len(domain.items)
        else 0.0,
        "duplicate_events": repeats.events,
        "repeated_items": repeats.items,
        "rejected": dict(facts.get("rejected", {})),
        "removed": {key: n for key, n in filtered.items() if key.endswith("_removed") and n},
        "attributes": domain.catalog.table.column_names[4:],
        "findings": find(domain),
        "samples": _samples(domain, popularity),
    }
    return DomainSummary(**values, warnings=_warnings(values, facts))


def text_lengths_of(domain: Domain) -> npt.NDArray[np.int64]:
    """Characters of every item's sentence, without a copy of the texts. (N,)"""
    texts = text_column(domain.catalog.table, "text").fill_null("")
    return texts.str.len_chars().to_numpy().astype(np.int64)


def gini(counts: npt.NDArray[np.integer[Any]]) -> float:
    """Gini coefficient of non-negative counts (n,): 0 = all equal, towards 1 = one has all."""
    total = counts.sum()
    if total == 0:
        return 0.0
    ranks = np.arange(1, len(counts) + 1)
    return float(2 * (ranks * np.sort(counts)).sum() / (len(counts) * total) - 1 - 1 / len(counts))


def count_repeats(
    users: npt.NDArray[np.integer[Any]],
    items: npt.NDArray[np.integer[Any]],
    timestamps: npt.NDArray[np.int64],
) -> Repeats:
    """Count the interactions that repeat an earlier one. Shapes: all (n,)."""
    order = np.lexsort((timestamps, items, users))
    user, item, time = (np.diff(column[order]) for column in (users, items, timestamps))
    pairs = (user == 0) & (item == 0)
    return Repeats(events=int((pairs & (time == 0)).sum()), items=int(pairs.sum()))


def _spread(values: npt.NDArray[np.integer[Any]]) -> Spread:
    if not len(values):
        return Spread(minimum=0, lower=0, median=0, upper=0, maximum=0, mean=0)
    cuts = [float(cut) for cut in np.quantile(values, QUANTILES)]
    names = ("minimum", "lower", "median", "upper", "maximum")
    return Spread(**dict(zip(names, cuts, strict=True)), mean=float(values.mean()))


def _top_share(counts: npt.NDArray[np.integer[Any]], share: float) -> float:
    top = max(1, round(len(counts) * share))
    return float(np.sort(counts)[-top:].sum() / max(counts.sum(), 1))


def _time(domain: Domain, facts: dict[str, Any]) -> dict[str, Any]:
    real = facts.get("real", True) and len(domain.timestamps) > 0
    inside = np.ones(max(len(domain.timestamps) - 1, 0), dtype=bool)  # steps within one history
    borders = domain.offsets[1:-1]
    inside[borders[(borders > 0) & (borders < len(domain.timestamps))] - 1] = False
    tied = (np.diff(domain.timestamps) == 0)[inside]
    return {
        "time_unit": facts.get("unit", "ms"),
        "first_time": _iso(int(domain.timestamps.min())) if real else None,
        "last_time": _iso(int(domain.timestamps.max())) if real else None,
        "tied_share": float(tied.mean()) if len(tied) else 0.0,
    }


def _iso(ms: int) -> str:
    moment = datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _samples(domain: Domain, popularity: npt.NDArray[np.integer[Any]]) -> list[Sample]:
    count = len(domain.catalog)
    places = np.unique(np.linspace(0, count - 1, min(SAMPLES, count)).astype(np.int64))
    samples = []
    for place in places:
        item = domain.catalog[int(place)]
        samples.append(
            Sample(
                item_id=item.item_id,
                title=item.title,
                text=item.text,
                interactions=int(popularity[place]),
                has_image=item.image is not None,
            )
        )
    return samples


def _warnings(values: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    """Plain sentences; each says what follows for training or evaluation."""
    found = []
    users, items = values["users"], values["items"]
    if not values["items_with_image"]:
        found.append(
            "No item has a picture: the image losses are zero, the text does all the work."
        )
    elif values["items_with_image"] < items / 2:
        share = values["items_with_image"] / max(items, 1)
        found.append(f"Only {share:.0%} of the items have a picture.")
    if values["items_with_text"] < items:
        found.append(f"{items - values['items_with_text']:,} items have no text at all.")
    if values["evaluated_users"] < users:
        short = users - values["evaluated_users"]
        why = (
            "have fewer than 3 interactions: they train, but are not evaluated."
            if values["split"] == LEAVE_ONE_OUT.words
            else "have nothing on one side of the test date: they are not evaluated."
        )
        found.append(f"{short:,} users {why}")
    if values["history_length"].median < 5:
        found.append("Half of the histories are shorter than 5: there is little to learn from.")
    if not facts.get("time", {}).get("real", True):
        found.append(
            "Times are positions, not points in time: nothing can be compared between users, "
            "and no split by date is possible."
        )
    if values["tied_share"] > 0.2:
        found.append(
            f"{values['tied_share']:.0%} of the steps within histories have no order in time "
            "(equal times): the order of the source decides."
        )
    if values["untaken_items"]:
        found.append(
            f"{values['untaken_items']:,} items were never taken: "
            "only their text and picture can place them."
        )
    if values["rejected"]:
        found.append(
            f"{sum(values['rejected'].values()):,} rows were set aside (rejected.parquet)."
        )
    found += _odd_values(facts)
    unread = facts.get("items", {}).get("unreadable_prices", 0)
    if unread:
        found.append(f"{unread:,} prices could not be read and are empty.")
    found += warnings_of(values["findings"])
    if not values["licence"]:
        found.append("The terms of use of the data are not recorded (--licence).")
    return found


def _odd_values(facts: dict[str, Any]) -> list[str]:
    """What was taken as it is, but may not be meant."""
    found = []
    for what, alike in facts.get("look_alike_ids", {}).items():
        if alike["ids"]:
            shown = " and ".join(repr(name) for name in alike["examples"][0])
            found.append(
                f"{alike['ids']:,} ids of {what} differ from another one by case or white space "
                f"alone, such as {shown}: they count as different."
            )
    early = facts.get("time", {}).get("in_1970", 0)
    if early:
        found.append(
            f"{early:,} interactions are in the year 1970: a 0 often means that there was no time."
        )
    negative = facts.get("items", {}).get("negative_prices", 0)
    if negative:
        found.append(f"{negative:,} prices are negative and are empty.")
    marked = facts.get("items", {}).get("texts_with_markup", 0)
    if marked:
        found.append(f"{marked:,} items came with HTML in their words: it was taken out of them.")
    events = facts.get("events", {})
    if events.get("left_out"):
        found.append(f"{events['left_out']:,} events do not count (kinds or weights not chosen).")
    return found


def render_summary(summary: DomainSummary) -> "Group":
    """The summary as tables and text for a terminal."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    def spread(value: Spread) -> str:
        cuts = (value.minimum, value.lower, value.median, value.upper, value.maximum)
        return " · ".join(f"{cut:,.0f}" for cut in cuts) + f"  (mean {value.mean:,.1f})"

    s = summary
    span = f"{s.first_time} … {s.last_time}" if s.first_time else f"none ({s.time_unit})"
    rows = {
        "users": f"{s.users:,}  ({s.evaluated_users:,} can be evaluated)",
        "items": f"{s.items:,}  ({s.untaken_items:,} never taken)",
        "interactions": f"{s.interactions:,}  ({s.repeated_items:,} of items taken before, "
        f"{s.duplicate_events:,} exact repetitions)",
        "split": s.split,
        "training": f"{s.training_interactions:,} interactions, {s.training_pairs:,} pairs",
        "history length": spread(s.history_length),
        "interactions per item": spread(s.item_interactions),
        "popularity": f"Gini {s.gini:.2f}, the top 10 % of items have {s.top_tenth_share:.0%}",
        "time": span,
        "text (characters)": f"{spread(s.text_characters)}, {s.items_with_text:,} items",
        "images": f"{s.items_with_image:,} items, {s.interactions_with_image:.0%} of interactions",
        "attributes": ", ".join(s.attributes) or "none",
        "rejected rows": _listed(s.rejected),
        "removed by filters": _listed(s.removed),
        "source": s.source or "not recorded",
        "licence": s.licence or "not recorded",
    }
    facts = Table(title=escape(s.name), show_header=False, title_justify="left")
    for label, value in rows.items():
        facts.add_row(label, escape(value))
    facts.caption = "spreads: minimum · quarter · median · three quarters · maximum"
    samples = Table("item", "taken", "image", "sentence", title="sample", title_justify="left")
    for item in s.samples:
        text = item.text if len(item.text) <= 200 else item.text[:199] + "…"
        samples.add_row(
            escape(item.item_id),
            str(item.interactions),
            "yes" if item.has_image else "no",
            escape(text),
        )
    notes = [Text(f"! {warning}") for warning in s.warnings]
    return Group(facts, samples, *notes)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{key.replace('_', ' ')}: {n:,}" for key, n in counts.items()) or "none"
