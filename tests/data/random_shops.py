"""Shops drawn at random, with everything in their tables that tables can hold."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from hypothesis import strategies as st
from shop_files import picture

from utgrec import storage
from utgrec.catalog import Domain
from utgrec.data.options import MAPPING, TableOptions, merge_options, read_mapping
from utgrec.data.prepare import prepare_table

# What breaks tables: separators, quotes, line ends, markup, spaces that are not spaces, signs.
NASTY = [",", '"', "\t", "\n", "\r", "|", " > ", "<b>", "&amp;", "\u00a0", "✨", "'", "=", "[", "0"]
TEXTS = st.lists(st.sampled_from([*NASTY, "tea", "Pot", "7", "1.0", "true", " "]), max_size=5).map(
    "".join
)
NUMBERS = st.one_of(st.integers(-5, 10**12), st.floats(-1e30, 1e30), st.none())
IDS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=6)


@st.composite
def shops(draw: st.DrawFn) -> dict[str, Any]:
    """Items and events as rows, and the options to prepare them with."""
    ids = draw(st.lists(IDS.filter(str.strip), min_size=2, max_size=5, unique=True))
    items = []
    for item_id in ids:
        row: dict[str, Any] = {"item_id": item_id}
        for name, values in (
            ("title", TEXTS),
            ("brand", TEXTS),
            ("categories", st.lists(TEXTS, max_size=3)),
            ("price", st.one_of(NUMBERS, TEXTS)),
            ("size", NUMBERS),
            ("organic", st.sampled_from([True, False, None])),
            ("makers", st.lists(TEXTS, max_size=2)),
            ("note", st.one_of(TEXTS, st.integers(0, 9).map(str))),
        ):
            row[name] = draw(values)
        items.append(row)
    users = draw(st.lists(IDS.filter(str.strip), min_size=1, max_size=3, unique=True))
    events = [
        {
            "user_id": draw(st.sampled_from(users)),
            "item_id": draw(st.sampled_from(ids)),
            "timestamp": draw(st.integers(10**9, 2 * 10**9)),
            "action": draw(st.sampled_from(["view", "buy", "buy "])),
        }
        for _ in range(draw(st.integers(3, 12)))
    ]
    return {
        "items": items,
        "events": events,
        "pictures": draw(st.booleans()),
        "with_events": draw(st.booleans()),
        "by_time": draw(st.booleans()),
        "k_core": draw(st.sampled_from([1, 2])),
    }


def prepare_shop(folder: Path, shop: dict[str, Any], **more: Any) -> Path:
    """Write a shop as JSON lines, prepare it, and give the domain folder."""
    source = folder / "shop"
    (source / "pics").mkdir(parents=True)
    items = [dict(row) for row in shop["items"]]
    if shop["pictures"]:
        (source / "pics" / "a.png").write_bytes(picture())
        items[0]["image"] = "pics/a.png"
    for name, rows in (("items", items), ("interactions", shop["events"])):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (source / f"{name}.jsonl").write_text(text, encoding="utf-8")
    settings: dict[str, Any] = {
        "name": "random shop",
        "k_core": shop["k_core"],
        "time_unit": "s",
        "source": 'drawn "at random"\n',
        "bad_rows": "reject",
        **more,
    }
    if shop["with_events"]:
        settings |= {"columns": {"event": "action"}, "events": {"types": {"view": 0.1, "buy": 1.5}}}
    if shop["by_time"]:
        settings["split"] = {"kind": "global-time", "valid_share": 0.3, "test_share": 0.3}
    prepare_table(source, folder / "domain", merge_options({}, settings))
    return folder / "domain"


def options_of(export: Path, **more: Any) -> TableOptions:
    """The options that an export brings."""
    return merge_options(read_mapping(export / MAPPING), more)


def assert_same_domain(first: Path, second: Path) -> None:
    """Equal to the last bit, and with the same rule for its split."""
    for name in ("items", "users", "interactions"):
        one, other = (pq.read_table(folder / f"{name}.parquet") for folder in (first, second))
        assert one.schema.equals(other.schema), (name, one.schema, other.schema)
        assert one.to_pylist() == other.to_pylist(), name
    folders = (first, second)
    ours, theirs = (storage.read_manifest(path, "domain", "domain.json") for path in folders)
    for fact in ("name", "counts", "source", "licence", "split"):
        assert ours.facts[fact] == theirs.facts[fact]
    assert ours.facts["time"]["real"] == theirs.facts["time"]["real"]
    assert ours.fingerprint == theirs.fingerprint or ours.facts["rejected"]
    assert Domain.open(first).split == Domain.open(second).split
