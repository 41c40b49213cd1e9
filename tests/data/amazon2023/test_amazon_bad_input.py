"""Dirty files of Amazon Reviews 2023: every way has a named outcome, never a traceback."""

import gzip
import json
import random
from typing import Any

import polars as pl
import pytest
from amazon_shop import CATEGORY, T0, as_bytes, item, review, some_shop, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from utgrec.catalog import Domain
from utgrec.data import pipeline
from utgrec.data.amazon2023 import prepare
from utgrec.data.amazon2023.prepare import AmazonOptions, prepare_amazon
from utgrec.errors import BadTable, UTGRecError

OPEN = AmazonOptions(k_core=1)
GOOD = [review("u", "B1"), review("u", "B2", T0 + 1)]
ITEMS = [item("B1"), item("B2")]
YEAR_2200 = 7_258_118_400_000


def outcome(tmp_path, reviews, items, options=OPEN, **how) -> tuple[Domain, list[dict[str, Any]]]:
    prepare_amazon(
        CATEGORY, write(tmp_path / "in", reviews, items, **how), tmp_path / "out", options
    )
    rejected = tmp_path / "out" / "rejected.parquet"
    rows = pl.read_parquet(rejected).to_dicts() if rejected.exists() else []
    return Domain.open(tmp_path / "out"), rows


def without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}


LINES = {
    "half": (b'{"rating": 5.0, "user_id": "u", "par', "broken row", "cannot be read"),
    "utf-8": (
        json.dumps(review("u", "X")).encode().replace(b"Good", b"\xff"),
        "broken encoding",
        "UTF-8",
    ),
    "array": (b"[1, 2]", "broken row", "a JSON list, not an object"),
    "null": (b"null", "broken row", "NoneType"),
    "zeros": (b"\x00\x00", "broken row", "cannot be read"),
    "python": (str(review("u", "X")).encode(), "broken row", "cannot be read"),
    "no user": (without(review("u", "B1"), "user_id"), "missing user id", ""),
    "null user": (review(None, "B1"), "missing user id", ""),
    "blank user": (review("  ", "B1"), "missing user id", ""),
    "list user": (review(["u"], "B1"), "missing user id", "['u'] cannot be an id"),
    "true user": (review(True, "B1"), "missing user id", "True cannot be an id"),
    "half pair": (
        json.dumps(review("a", "B1")).replace('"a"', '"\\ud800"').encode(),
        "missing user id",
        "cannot be an id",
    ),
    "no item": (without(review("u", "B1"), "parent_asin"), "missing item id", ""),
    "object item": (review("u", {"id": 1}), "missing item id", "cannot be an id"),
    "no time": (without(review("u", "B1"), "timestamp"), "missing time", ""),
    "null time": (review("u", "B1", None), "missing time", ""),
    "word time": (review("u", "B1", "yesterday"), "unreadable time", "'yesterday'"),
    "true time": (review("u", "B1", True), "unreadable time", "True"),
    "negative": (review("u", "B1", -5), "negative time", "-5"),
    "1970": (review("u", "B1", 0), "time before the year 1995", "0"),
    "seconds": (review("u", "B1", 1_500_000_000), "time before the year 1995", "1500000000"),
    "2200": (review("u", "B1", YEAR_2200), "time after the year 2100", str(YEAR_2200)),
}


@pytest.mark.parametrize("name", LINES)
def test_a_line_that_cannot_be_used(tmp_path, name):
    line, reason, detail = LINES[name]
    domain, rows = outcome(tmp_path, [GOOD[0], line, GOOD[1]], ITEMS)
    assert domain.interaction_count == 2
    (row,) = rows
    assert (row["file"], row["row"], row["reason"]) == (f"{CATEGORY}.jsonl", 2, reason)
    assert detail in row["detail"]
    assert domain.manifest.facts["rejected"] == {reason: 1}
    with pytest.raises(BadTable, match=rf"{CATEGORY}.jsonl, line 2: {reason}.*--bad-rows reject"):
        strict = AmazonOptions(k_core=1, bad_rows="error", overwrite=True)
        prepare_amazon(CATEGORY, tmp_path / "in", tmp_path / "out2", strict)
    assert not (tmp_path / "out2").exists()


FINE = {
    "number user": (review(12, "B1"), ("12", T0)),
    "float user": (review(12.0, "B1"), ("12", T0)),
    "text time": (review("v", "B1", str(T0)), ("v", T0)),
    "float time": (review("v", "B1", T0 + 0.4), ("v", T0)),
    "more keys": (review("v", "B1", extra={"user_id": "no"}), ("v", T0)),
    "emoji id": (review("😀/../", "B1"), ("😀/../", T0)),
}


@pytest.mark.parametrize("name", FINE)
def test_a_line_of_another_type_that_says_enough(tmp_path, name):
    line, (user, time) = FINE[name]
    domain, rows = outcome(tmp_path, [*GOOD, line], ITEMS)
    assert rows == [] and user in domain.user_ids
    assert domain.timestamps[domain.offsets[domain.user_ids.index(user)]] == time


def test_a_mark_at_the_start_blank_lines_and_returns(tmp_path):
    data = b"\xef\xbb\xbf" + as_bytes(GOOD).replace(b"\n", b"\r\n\r\n") + b"\n  \n"
    domain, rows = outcome(tmp_path, data, as_bytes(ITEMS)[:-1])
    assert (domain.interaction_count, rows) == (2, [])


@pytest.mark.parametrize("which", ["reviews", "metadata"])
@pytest.mark.parametrize(
    "damage", ["half line", "half gzip", "array", "utf-16", "empty", "no column"]
)
def test_a_file_that_cannot_be_used(tmp_path, which, damage):
    good = {"reviews": as_bytes(GOOD), "metadata": as_bytes(ITEMS)}
    data, message = good[which], ""
    if damage == "half line":
        data, message = data[:-30], "the last line is only half there"
    elif damage == "half gzip":
        packed = gzip.compress(as_bytes([review(f"u{n}", "B1") for n in range(3000)]))
        data, message = packed[: len(packed) // 2], "not a whole gzip file"
    elif damage == "array":
        data, message = b"[" + data.replace(b"\n", b",\n") + b"]", "one JSON array"
    elif damage == "utf-16":
        data, message = data.decode().encode("utf-16"), "(?i)utf-16|no column"
    elif damage == "empty":
        data, message = b"", "no column .*its columns are none"
    else:
        data, message = (
            b'{"asin": "B1", "text": "x"}\n' * 5,
            "no column .*its columns are asin, text",
        )
    good[which] = data
    folder = write(tmp_path, good["reviews"], good["metadata"])
    if damage == "half gzip":
        (plain,) = [
            p for p in folder.rglob("*.jsonl") if (p.name[:4] == "meta") == (which != "reviews")
        ]
        plain.rename(f"{plain}.gz")
    with pytest.raises(BadTable, match=message):
        prepare_amazon(CATEGORY, folder, tmp_path / "out", OPEN)
    assert not (tmp_path / "out").exists()


def test_ids_that_differ_by_case_or_space_stay_apart_and_are_counted(tmp_path):
    reviews = [review("u", "B1"), review("U", "b1"), review(" u", "B1 "), review("v", "B2")]
    domain, rows = outcome(tmp_path, reviews, [item("B1"), item("b1"), item("B1 "), item("B2")])
    assert domain.user_ids == [" u", "U", "u", "v"] and rows == []
    assert domain.catalog.item_ids == ["B1", "B1 ", "B2", "b1"]
    facts = domain.manifest.facts["look_alike_ids"]
    assert {what: found["ids"] for what, found in facts.items()} == {"users": 3, "items": 3}


ODD_ITEMS = {
    "no words": ({"parent_asin": "B1"}, {"text": "", "title": ""}),
    "empty": (
        item("B1", title="", features=[], categories=[], description=[], images=[]),
        {"text": "", "title": ""},
    ),
    "nulls": (dict.fromkeys(item("B1")) | {"parent_asin": "B1"}, {"text": "", "title": ""}),
    "text for list": (
        item("B1", features="One", description="Two"),
        {"text": "Guitar B1. One. Music, Guitars. Two."},
    ),
    "number title": (
        item("B1", title=1984, features=[]),
        {"text": "1984. Music, Guitars. A fine, guitar."},
    ),
    "list title": (
        item("B1", title=["a"], features=[]),
        {"text": "Music, Guitars. A fine, guitar.", "title": ""},
    ),
    "mixed list": (
        item("B1", features=[1, None, ["x", ["y"]]]),
        {"text": "Guitar B1. 1, x, y. Music, Guitars. A fine, guitar."},
    ),
    "negative price": (item("B1", price=-4.0), {"price": None, "unread": 1}),
    "text price": (item("B1", price="from $1,299.00"), {"price": 1299.0, "unread": 0}),
    "none price": (item("B1", price="None"), {"price": None, "unread": 0}),
    "list price": (item("B1", price=[3]), {"price": None}),
    "true price": (item("B1", price=True), {"price": None}),
    "no main": (
        item("B1", images=[{"large": "https://a/1"}, {"large": "https://a/2"}]),
        {"url": "https://a/1"},
    ),
    "only hi_res": (
        item("B1", images=[{"hi_res": "https://a/h", "large": None}]),
        {"url": "https://a/h"},
    ),
    "main without": (
        item("B1", images=[{"large": "https://a/1"}, {"variant": "MAIN"}]),
        {"url": "https://a/1"},
    ),
    "columns": (
        item("B1", images={"large": ["https://a/1", "https://a/2"], "variant": ["PT01", "MAIN"]}),
        {"url": "https://a/2"},
    ),
    "one address": (item("B1", images="https://a/1"), {"url": "https://a/1"}),
    "addresses": (item("B1", images=["https://a/1", "https://a/2"]), {"url": "https://a/1"}),
    "script": (item("B1", images=[{"large": "javascript:alert(1)"}]), {"url": None, "odd": 1}),
    "file": (item("B1", images=[{"large": "file:///etc/passwd"}]), {"url": None, "odd": 1}),
    "half pair": (
        json.dumps(item("B1", title="x\ud800y", features=[])).encode(),
        {"text": "xy. Music, Guitars. A fine, guitar."},
    ),
    # The other item has some, too.
    "HTML": (item("B1", title="x", features=["<b>x</b>"], description=["x"]), {"markup": 2}),
    "no HTML": (item("B1", title="x", features=["x < y"], description=["a & b"]), {"markup": 1}),
}


@pytest.mark.parametrize("name", ODD_ITEMS)
def test_an_odd_item(tmp_path, name):
    line, expected = ODD_ITEMS[name]
    domain, rows = outcome(tmp_path, GOOD, [line, item("B2")])
    found, facts = domain.catalog[0], domain.manifest.facts["items"]
    values = {
        "text": found.text,
        "title": found.title,
        "price": found.attributes["price"],
        "url": found.attributes["image_url"],
        "unread": facts["unreadable_prices"],
        "odd": facts["images_without_address"],
        "markup": facts["texts_with_markup"],
    }
    assert rows == [] and {key: values[key] for key in expected} == expected


def test_items_twice_and_without_id(tmp_path):
    items = [
        ITEMS[0],
        item(None),
        item("B1", title="Other"),
        b"{",
        ITEMS[1],
        item("B7"),
        item("B7"),
    ]
    domain, rows = outcome(tmp_path, GOOD, items)
    assert domain.catalog.titles == ["Guitar B1", "Guitar B2"]
    assert [(row["row"], row["reason"], row["item_id"]) for row in rows] == [
        (2, "missing item id", None),
        (4, "broken row", None),
        (3, "duplicate item id", "B1"),
    ]
    assert rows[2]["detail"] == "first seen at row 1"


def test_very_many_bad_lines_are_counted_but_not_all_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "MOST_LISTED", 10)
    monkeypatch.setattr(pipeline, "MOST_LISTED", 10)
    domain, rows = outcome(tmp_path, [*GOOD, *[b"{"] * 500], ITEMS)
    assert len(rows) == 10 and domain.manifest.facts["rejected"] == {"broken row": 500}


@settings(
    deadline=None,
    max_examples=25,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.integers(0, 10**9))
def test_random_damage_has_a_named_outcome(tmp_path_factory, seed):
    """Bytes changed, cut out or doubled anywhere: a domain, or an error of ours."""
    rng = random.Random(seed)
    reviews, items = some_shop(seed % 3)
    files = [bytearray(as_bytes(reviews[:60])), bytearray(as_bytes(items[:20]))]
    for _ in range(rng.randint(1, 5)):
        data = rng.choice(files)
        start = rng.randrange(len(data))
        end = min(len(data), start + rng.choice([1, 1, 3, 100]))
        new = [
            b"",
            data[start:end] * 2,
            rng.randbytes(end - start),
            rng.choice([b'"', b"{", b"\n"]),
        ]
        data[start:end] = rng.choice(new)
    folder = tmp_path_factory.mktemp("damaged")
    try:
        outcome(folder, bytes(files[0]), bytes(files[1]))
    except UTGRecError as error:
        assert len(str(error)) > 20
        assert not (folder / "out").exists()
