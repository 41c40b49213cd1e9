"""The data card of a domain: what is in it, how it is spread, what to look out for.

One page as HTML (which loads nothing) and the same as Markdown with its pictures beside it.
"""

import base64
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from utgrec import storage
from utgrec.catalog import Domain
from utgrec.config import require
from utgrec.data.summary import DomainSummary, summarise, text_lengths_of
from utgrec.errors import StorageError
from utgrec.report import charts
from utgrec.report.pictures import Gallery, Tile
from utgrec.report.write import find_template

STAGE = "card"
LENGTHS = (1, 2, 3, 4, 5, 6, 8, 11, 16, 21, 31, 51, 101)  # first history length of each bar
CHARACTERS = (0, 1, 26, 51, 101, 201, 401, 801, 1601)  # first text length of each bar
PERIODS = 40  # bars over the time span
POINTS = 80  # of the popularity curve
TEXT_SHOWN = 300  # characters of a sample's sentence


class Histogram(NamedTuple):
    """Bars and what each of them counts."""

    title: str
    note: str
    bars: charts.Bars
    labels: list[str]
    last: str = ""  # where the last bar ends, if its label does not say


class SampleItem(NamedTuple):
    """One item as people and as models see it."""

    tile: Tile
    text: str
    interactions: int
    file: str  # its picture beside the Markdown, or empty


class Coverage(NamedTuple):
    """How many items have something."""

    name: str
    items: int
    share: float


def write_card(
    folder: Path, out: Path | None = None, *, samples: int = 12
) -> tuple[Path, DomainSummary]:
    """Write `card.html`, `card.md` and `pictures/` into `out`, by default DOMAIN-card beside it.

    Returns:
        The folder, and what was counted.

    Raises:
        MissingStage, CorruptFile: no usable domain there.
        StorageError: `out` exists and is no data card.
    """
    require(samples >= 0, f"samples must be at least 0, got {samples}")
    folder = Path(folder)
    out = Path(f"{os.path.abspath(folder)}-card") if out is None else Path(out)
    if out.exists() and storage.find_manifest(out, STAGE) is None:
        raise StorageError(f"{out} exists and is no data card; choose another folder with --out")
    domain = Domain.open(folder)
    summary = summarise(domain)
    shown = _samples(domain, samples)
    values = _values(domain, summary, shown)
    with storage.new_folder(out) as new:
        for item in shown:
            if item.file:
                (new / item.file).parent.mkdir(exist_ok=True)
                encoded = item.tile.picture.partition(",")[2]
                (new / item.file).write_bytes(base64.b64decode(encoded))
        for name in ("card.html", "card.md"):
            storage.write_text(new / name, find_template(f"{name}.j2").render(values))
        storage.write_manifest(
            new,
            stage=STAGE,
            config={"samples": samples},
            inputs={f"domain {domain.name}": domain.fingerprint},
        )
    return out, summary


def _values(domain: Domain, summary: DomainSummary, shown: list[SampleItem]) -> dict[str, Any]:
    """Everything that the templates print."""
    assert domain.manifest is not None
    facts = domain.manifest.facts
    popularity = np.bincount(domain.items, minlength=len(domain.catalog))
    pairs = summary.interactions - summary.repeated_items
    return {
        "summary": summary,
        "version": domain.manifest.package_version,
        "fingerprint": domain.fingerprint,
        "density": pairs / max(summary.users * summary.items, 1),
        "spreads": [
            ("Interactions per user", summary.history_length),
            ("Interactions per item", summary.item_interactions),
            ("Characters of the sentence", summary.text_characters),
        ],
        "popularity": _popularity(popularity),
        "histograms": _histograms(domain, summary),
        "coverage": _coverage(domain),
        "outcomes": facts.get("images", {}).get("outcomes", {}),
        "findings": _findings(summary),
        "split": summary.split,
        "filter": facts.get("filter", {}),
        "read": facts.get("read", {}),
        "cleaned": facts.get("cleaned", {}),
        "config": {k: v for k, v in domain.manifest.config.items() if v not in (None, "", [], {})},
        "samples": shown,
        "box": {
            "width": charts.WIDTH,
            "height": charts.HEIGHT,
            "left": charts.LEFT,
            "right": charts.RIGHT,
            "top": charts.TOP,
            "bottom": charts.BOTTOM,
        },
    }


def _popularity(counts: npt.NDArray[np.integer[Any]]) -> charts.LineChart | None:
    """Interactions by the item's place among all items; None without any interaction."""
    ordered = np.sort(counts[counts > 0])[::-1]
    if not len(ordered):
        return None
    places = np.unique(np.geomspace(1, len(ordered), POINTS).round().astype(np.int64))
    return charts.log_chart(
        "Popularity",
        [(float(place), float(ordered[place - 1])) for place in places],
        note="interactions of an item by its place, the most popular first; both axes grow tenfold",
        over="place of the item",
    )


def _histograms(domain: Domain, summary: DomainSummary) -> list[Histogram]:
    lengths = np.diff(domain.offsets)
    characters = text_lengths_of(domain)
    found = [
        _by_steps("Length of histories", "users by number of interactions", lengths, LENGTHS),
        _by_steps("Length of texts", "items by characters of the sentence", characters, CHARACTERS),
    ]
    if summary.first_time is not None and summary.last_time is not None:
        low, high = int(domain.timestamps.min()), int(domain.timestamps.max())
        edges = np.linspace(low, max(high, low + 1), PERIODS + 1)
        counts, _ = np.histogram(domain.timestamps, edges)
        days = edges[:-1].astype("datetime64[ms]").astype("datetime64[D]").astype(str).tolist()
        note = f"interactions in {PERIODS} equal periods, each named by its first day"
        bars = charts.columns(counts.tolist())
        found.append(Histogram("Time", note, bars, days, summary.last_time[:10]))
    return found


def _by_steps(
    title: str, note: str, values: npt.NDArray[np.integer[Any]], steps: Sequence[int]
) -> Histogram:
    """Bars that begin at `steps`; the last one takes all that is larger."""
    place = np.searchsorted(steps, values, side="right") - 1
    counts = np.bincount(place[place >= 0], minlength=len(steps))
    ends = [*(step - 1 for step in steps[1:]), None]
    labels = [
        f"{first}" if first == last else f"{first} or more" if last is None else f"{first}–{last}"
        for first, last in zip(steps, ends, strict=True)
    ]
    return Histogram(title, note, charts.columns(counts.tolist()), labels)


def _coverage(domain: Domain) -> list[Coverage]:
    """Of every column of the items, how many have a value (a text or list that is not empty)."""
    table, found = domain.catalog.table, []
    for name in table.column_names[1:]:
        column = table.column(name)
        count = len(column) - column.null_count
        kind = column.type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            count -= pc.sum(pc.equal(pc.list_value_length(column), 0)).as_py() or 0
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            count -= pc.sum(pc.equal(pc.binary_length(column), 0)).as_py() or 0
        found.append(Coverage(name, count, count / max(len(column), 1)))
    return found


def _findings(summary: DomainSummary) -> list[tuple[str, str]]:
    """Names and counts of what is suspicious, in words."""
    found = summary.findings
    unsorted = "not recorded" if found.unsorted_rows is None else f"{found.unsorted_rows:,}"
    return [
        ("Exact repetitions of an interaction", f"{found.duplicate_events:,}"),
        (
            "Interactions in bursts within a second",
            f"{found.burst_events:,} of {found.burst_users:,} users",
        ),
        (
            "Interactions of users too fast for people",
            f"{found.fast_user_events:,} of {found.fast_users:,} users",
        ),
        ("Steps back in time within histories", f"{found.backward_steps:,}"),
        ("Rows of the source out of the order of time", unsorted),
        ("Items without text", f"{found.empty_texts:,}"),
        ("Items with a text that says nothing", f"{found.placeholder_texts:,}"),
        ("Items with a text that others have too", f"{found.shared_texts:,}"),
        ("Items with a sentence that very many share", f"{found.boilerplate_items:,}"),
        ("Items with HTML in their texts", f"{found.markup_texts:,}"),
        ("Items with wrongly decoded texts", f"{found.mojibake_texts:,}"),
        ("Items with lost characters", f"{found.lost_characters:,}"),
        (
            "Items with a picture that others have too",
            f"{found.shared_picture_items:,} ({found.shared_pictures:,} pictures)",
        ),
    ]


def _samples(domain: Domain, count: int) -> list[SampleItem]:
    """Items at evenly spaced places of the popularity ranking, from the top to the bottom."""
    items = len(domain.catalog)
    counts = np.bincount(domain.items, minlength=items)
    ranking = np.argsort(-counts, kind="stable")
    chosen = np.unique(np.linspace(0, items - 1, min(count, items)).astype(np.int64))
    gallery = Gallery(domain.catalog)
    found = []
    for number, place in enumerate(chosen):
        index = int(ranking[place])
        tile, text = gallery.tile(index), domain.catalog[index].text
        kind = tile.picture.partition("image/")[2].partition(";")[0]
        found.append(
            SampleItem(
                tile=tile,
                text=text if len(text) <= TEXT_SHOWN else text[: TEXT_SHOWN - 1].rstrip() + "…",
                interactions=int(counts[index]),
                file=f"pictures/{number:02d}.{kind}" if tile.picture else "",
            )
        )
    return found
