"""Tables in many files, packed, mapped by a file, with times and events of any kind."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shop_files import (
    EVENTS,
    ITEMS,
    events_as_rows,
    read_table,
    read_times,
    write_rows,
    write_shop,
)

from utgrec.catalog import Domain
from utgrec.config import to_dict
from utgrec.data.options import find_mapping, merge_options, read_mapping
from utgrec.data.prepare import TableOptions, prepare_table
from utgrec.data.rejects import Rejects
from utgrec.data.table import join_tables
from utgrec.errors import BadConfig, BadTable, InputError

OPEN = TableOptions(name="tea", k_core=1)


def zstd(data: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(data, asbytes=True))


def tables_of(folder: Path) -> list[dict[str, Any]]:
    names = ("items", "users", "interactions")
    return [pq.read_table(folder / f"{name}.parquet").to_pydict() for name in names]


def split_shop(folder: Path) -> Path:
    """The usual small shop in five files of four formats."""
    (folder / "log").mkdir(parents=True)
    write_rows(folder / "part-1.jsonl", ITEMS[:1])
    write_rows(folder / "part-2.parquet", ITEMS[1:])
    rows = events_as_rows(list(EVENTS))
    for number, (ending, part) in enumerate(
        (("csv", rows[:2]), ("csv.gz", rows[2:4]), ("csv", rows[4:]))
    ):
        write_rows(folder / "log" / f"{number}.{ending}", part)
    packed = folder / "log" / "2.csv"
    (folder / "log" / "2.csv.zst").write_bytes(zstd(packed.read_bytes()))
    packed.unlink()
    return folder


def test_many_files_are_one_table(tmp_path: Path) -> None:
    write_shop(tmp_path / "one")
    prepare_table(tmp_path / "one", tmp_path / "first", OPEN)
    many = merge_options(to_dict(OPEN), {"items_file": "part-*", "interactions_file": "log/*.csv*"})
    manifest = prepare_table(split_shop(tmp_path / "many"), tmp_path / "second", many)
    assert tables_of(tmp_path / "first") == tables_of(tmp_path / "second")
    assert set(manifest.inputs) == {
        *("part-1.jsonl", "part-2.parquet", "images"),
        *("log/0.csv", "log/1.csv.gz", "log/2.csv.zst"),
    }


def test_bad_rows_name_their_file(tmp_path: Path) -> None:
    source = split_shop(tmp_path / "s")
    with open(source / "log" / "0.csv", "a") as stream:
        stream.write("u9,nothing,1400000000\n")
    with gzip.open(source / "log" / "1.csv.gz", "at") as stream:
        stream.write("half a li")
    (source / "part-3.jsonl").write_text('{"item_id": "7"}\n')
    options = merge_options(
        to_dict(OPEN),
        {"items_file": "part-*", "interactions_file": "log/*", "bad_rows": "reject"},
    )
    prepare_table(source, tmp_path / "out", options)
    rejected = pl.read_parquet(tmp_path / "out" / "rejected.parquet")
    assert set(rejected.select("file", "row", "reason").iter_rows()) == {
        ("part-3.jsonl", 1, "duplicate item id"),
        ("0.csv", 4, "unknown item"),
        ("1.csv.gz", 4, "broken row"),
    }


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("log/*.xml", "no file like"),
        ("../*", "leads out of"),
        ("/etc/*", "leads out of"),
        ("log/*", "no known table format"),
    ],
)
def test_patterns_that_fit_nothing(tmp_path: Path, pattern: str, message: str) -> None:
    source = split_shop(tmp_path / "s")
    (source / "log" / "notes.txt").touch()
    options = merge_options(to_dict(OPEN), {"items_file": "part-*", "interactions_file": pattern})
    with pytest.raises(BadTable, match=message):
        prepare_table(source, tmp_path / "out", options)


def test_files_of_one_log_have_the_same_columns(tmp_path: Path) -> None:
    source = split_shop(tmp_path / "s")
    (source / "log" / "3.csv").write_text("uid,item,ts\nu1,7,1400000000\n")
    options = merge_options(to_dict(OPEN), {"items_file": "part-*", "interactions_file": "log/*"})
    with pytest.raises(BadTable, match=r"3\.csv has the columns user 'uid'.*name their columns"):
        prepare_table(source, tmp_path / "out", options)


def test_columns_that_a_file_lacks_are_empty(tmp_path: Path) -> None:
    paths = [
        write_rows(tmp_path / "a.csv", [{"x": "1", "y": "2"}]),
        write_rows(tmp_path / "b.csv", [{"x": "3", "z": "4"}, {"x": "5", "z": "6"}]),
        write_rows(tmp_path / "c.jsonl", [{"x": 7}]),
    ]
    table = join_tables([read_table(path, Rejects("error")) for path in paths])
    assert table.values("x") == ["1", "3", "5", 7]
    assert table.values("y") == ["2", None, None, None]
    assert [table.file(place) for place in range(4)] == ["a.csv", "b.csv", "b.csv", "c.jsonl"]
    assert table.rows.tolist() == [2, 2, 3, 1]


@pytest.mark.parametrize("cut", [0, 1, 5, 40, -1])
def test_zstd_is_read_whole_or_not_at_all(tmp_path: Path, cut: int) -> None:
    data = b"id,x\n" + b"".join(b"%d,%d\n" % (n, n * n) for n in range(5000))
    packed = zstd(data[:9000]) + zstd(data[9000:])  # two frames, as parallel packers write them
    path = tmp_path / "t.csv.zst"
    path.write_bytes(packed)
    assert read_table(path, Rejects("error")).values("x")[-1] == str(4999**2)
    path.write_bytes(packed[:cut])
    with pytest.raises(BadTable, match=r"zstd|no header"):
        read_table(path, Rejects("error"))


# ------------------------------------------------------------------------------------- mapping


def test_a_mapping_says_what_flags_say(tmp_path: Path) -> None:
    source = split_shop(tmp_path / "s")
    (source / "utgrec.toml").write_text(
        'items_file = "part-*"\ninteractions_file = "log/*"\nname = "mapped"\nk_core = 3\n'
        '[columns]\nbrand = "makers"\n'
    )
    assert find_mapping(source, None) == source / "utgrec.toml"
    assert find_mapping(source, Path("x.toml")) == Path("x.toml")
    assert find_mapping(tmp_path, None) is None
    mapping = read_mapping(source / "utgrec.toml")
    merged = merge_options(mapping, {"k_core": 1, "columns": {"title": "title"}})
    assert merged == TableOptions(
        name="mapped",
        items_file="part-*",
        interactions_file="log/*",
        k_core=1,
        columns={"brand": "makers", "title": "title"},
    )
    assert prepare_table(source, tmp_path / "out", merged).facts["name"] == "mapped"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("k_core = ", "not valid TOML"),
        ('k_core = "five"', "k_core must be a whole number"),
        ("k_core = 0", "k_core is 0"),
        ("cores = 5", "no setting cores"),
        ("overwrite = true", "command line only"),
        ("columns = 7", "must be a table"),
        ("[columns]\ntitle = 7", "columns must be a table"),
        ("[columns]\nfoo = 'x'", "no role foo"),
        ("[events.types]\nbuy = -1", "0 or more"),
        ("[events]\nmin_weight = 'x'", "must be a number"),
        ("[split]\nkind = 'x'", "kind must be one of leave-one-out"),
        ("time_format = 'x'", "has no directive"),
        ("time_format = '%S%f'", "%f is read after a point"),
        ("time_format = '%Y %3'", "%3 cannot be read"),
        ("time_format = '%Y%'", "% cannot be read"),
        ("time_zone = 'Mars'", "'Mars' is unknown"),
        ("time_format = '%Y'\ntime_unit = 's'", "too much"),
        ("text_columns = 'a'", "text_columns must be a list"),
        ("exact_types = {a = 'x'}\nexact = true", "no type x"),
    ],
)
def test_wrong_mappings_name_the_file_and_the_rule(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m.toml").write_text(text)
    with pytest.raises(BadConfig, match=f"(?s)m.toml.*({message})"):
        read_mapping(tmp_path / "m.toml")
    with pytest.raises(InputError, match="is no file"):
        read_mapping(tmp_path / "none.toml")


# --------------------------------------------------------------------------------------- times


@pytest.mark.parametrize(
    ("text", "time_format", "zone", "ms"),
    [
        ("13.05.2014 16:53", "%d.%m.%Y %H:%M", "UTC", 1_399_999_980_000),
        ("13.05.2014 18:53", "%d.%m.%Y %H:%M", "Europe/Berlin", 1_399_999_980_000),
        ("13/May/14 04:53:20.123 PM", "%d/%b/%y %I:%M:%S.%f %p", "UTC", 1_400_000_000_123),
        ("2014-05-13 18:53:20 +0200", "%Y-%m-%d %H:%M:%S %z", "Asia/Tokyo", 1_400_000_000_000),
        ("13.05.2014", "%d.%m.%Y", "UTC", 1_399_939_200_000),
        ("2014-05-13T18:53:20", "", "Europe/Berlin", 1_400_000_000_000),
        ("2014-05-13T18:53:20+02:00", "", "Asia/Tokyo", 1_400_000_000_000),
        # In autumn 02:30 comes twice: the first is meant. In spring it never comes.
        ("2014-10-26T02:30:00", "", "Europe/Berlin", 1_414_283_400_000),
        ("2014-03-30T02:30:00", "", "Europe/Berlin", None),
        ("30.03.2014 02:30", "%d.%m.%Y %H:%M", "Europe/Berlin", None),
        ("2014-05-13", "%d.%m.%Y", "UTC", None),
        ("1400000000", "%d.%m.%Y", "UTC", None),
    ],
)
def test_formats_and_zones(text: str, time_format: str, zone: str, ms: int | None) -> None:
    times = read_times(["x", text, None], time_format=time_format, time_zone=zone)
    problems = ["unreadable time", None if ms else "unreadable time", "missing time"]
    assert times.problem.to_list() == problems
    assert times.ms[1] == (ms or 0)
    assert (f"in {zone}" in times.facts["rule"]) == (zone != "UTC") or not ms


def test_typed_clock_times_are_in_the_zone() -> None:
    clock = pl.Series(["2014-05-13T18:53:20"]).str.to_datetime()
    assert read_times(clock, time_zone="Europe/Berlin").ms.tolist() == [1_400_000_000_000]


def test_the_years_1970_and_2200() -> None:
    times = read_times(["0", "86400", "1400000000", "7258118400"], "s")
    assert times.problem.to_list() == [None, None, None, "time after the year 2100"]
    assert times.facts["in_1970"] == 2
    assert read_times(["1970-06-01", "2200-01-01"]).facts["in_1970"] == 1
    assert read_times([0, 1, 2]).facts["in_1970"] == 0  # positions


# -------------------------------------------------------------------------------------- events


def event_shop(folder: Path) -> Path:
    rows = [
        {"user_id": "u", "item_id": "7", "timestamp": 1_400_000_000 + n, "kind": kind, "pieces": p}
        for n, (kind, p) in enumerate(
            [("view", "1"), ("cart", "2"), ("buy", "3"), (" buy ", "0.5"), ("wish", "1")]
        )
    ]
    rows.append({**rows[0], "item_id": "gone", "kind": "view"})
    folder.mkdir()
    write_rows(folder / "items.jsonl", ITEMS)
    write_rows(folder / "interactions.csv", rows)
    return folder


def test_kinds_weights_and_what_is_stored(tmp_path: Path) -> None:
    options = merge_options(
        to_dict(OPEN),
        {
            "columns": {"event": "kind", "weight": "pieces"},
            "events": {"types": {"cart": 0.5, "buy": 2.0}, "min_weight": 1.0},
        },
    )
    manifest = prepare_table(event_shop(tmp_path / "s"), tmp_path / "out", options)
    table = pq.read_table(tmp_path / "out" / "interactions.parquet")
    assert table.column_names == ["user", "item", "timestamp", "event", "weight"]
    assert table.column("event").to_pylist() == ["cart", "buy", "buy"]
    assert table.column("weight").to_pylist() == [1.0, 6.0, 1.0]
    facts = manifest.facts["events"]
    assert facts == {
        "columns": {"event": "kind", "weight": "pieces"},
        "min_weight": 1.0,
        "kinds": {
            "buy": {"weight": 2.0, "read": 2, "left_out": 0},
            "cart": {"weight": 0.5, "read": 1, "left_out": 0},
            "view": {"weight": None, "read": 2, "left_out": 2},
            "wish": {"weight": None, "read": 1, "left_out": 1},
        },
        "left_out": 3,
        "stored": ["event", "weight"],
    }
    assert manifest.facts["rejected"] == {}  # a view of an item that is gone stops nobody
    assert Domain.open(tmp_path / "out").interaction_count == 3


def test_without_events_nothing_is_guessed(tmp_path: Path) -> None:
    source = event_shop(tmp_path / "s")
    (source / "interactions.csv").write_text(
        (source / "interactions.csv").read_text().replace(",kind,", ",event_type,")
    )
    options = merge_options(to_dict(OPEN), {"bad_rows": "reject"})
    facts = prepare_table(source, tmp_path / "out", options).facts
    assert "events" not in facts and facts["counts"]["interactions"] == 5
    told = merge_options(to_dict(OPEN), {"events": {"types": {"buy": 1}}})
    facts = prepare_table(source, tmp_path / "told", told).facts
    assert facts["counts"]["interactions"] == 2  # event_type is found once kinds are named


def test_bad_events_are_named(tmp_path: Path) -> None:
    source = event_shop(tmp_path / "s")
    rows = [("buy", "x"), ("buy", "-1"), ("", "1"), ("buy", ""), ("buy", "nan"), ("buy", "1")]
    write_rows(
        source / "interactions.csv",
        [
            {"user_id": "u", "item_id": "7", "timestamp": 1_400_000_000, "kind": k, "pieces": p}
            for k, p in rows
        ],
    )
    options = merge_options(
        to_dict(OPEN),
        {
            "columns": {"event": "kind", "weight": "pieces"},
            "events": {"types": {"buy": 1.0}},
            "bad_rows": "reject",
        },
    )
    facts = prepare_table(source, tmp_path / "out", options).facts
    assert facts["rejected"] == {
        "missing event": 1,
        "negative weight": 1,
        "unreadable weight": 3,
    }
    assert facts["counts"]["interactions"] == 1


# ------------------------------------------------------------------------------- odd but usable


def test_odd_values_are_counted(tmp_path: Path) -> None:
    items = [
        {"item_id": "a1", "title": "x", "price": -3},
        {"item_id": "A1", "title": "y", "price": "-2,50 €"},
        {"item_id": " a 1", "title": "", "price": "none"},
        {"item_id": "b", "title": None, "price": 1},
        {"item_id": "c", "title": "<b>Tea</b>", "brand": "L&amp;Co", "price": 2},
        {"item_id": "d", "title": "lost \ufffd", "features": ["4 < 5", "a<br>b"], "price": 2},
    ]
    events = [("U", "a1", 0), ("u", "A1", 1_400_000_000), ("v", "b", 1_400_000_001)]
    source = write_shop(tmp_path / "s", items, events)
    facts = prepare_table(source, tmp_path / "out", OPEN).facts
    assert facts["look_alike_ids"]["items"] == {"ids": 3, "examples": [[" a 1", "A1"]]}
    assert facts["look_alike_ids"]["users"]["ids"] == 2
    assert (facts["items"]["negative_prices"], facts["items"]["unreadable_prices"]) == (2, 1)
    assert facts["time"]["in_1970"] == 1
    from utgrec.data.summary import summarise

    warnings = " ".join(summarise(Domain.open(tmp_path / "out")).warnings)
    for words in (
        *("case or white space", "prices are negative", "year 1970", "no text at all"),
        *("2 items came with HTML", "1 items have characters that were lost"),
    ):
        assert words in warnings, words


@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_many_items_without_text(tmp_path: Path, count: int) -> None:
    ids = [f"item {n}" for n in range(count)]
    source = tmp_path / "s"
    source.mkdir()
    (source / "items.csv").write_text("item_id\n" + "\n".join(ids) + "\n")
    log = "".join(f"u{n % 500},item {n % count},{1_400_000_000 + n}\n" for n in range(30_000))
    (source / "interactions.csv").write_text("user_id,item_id,timestamp\n" + log)
    facts = prepare_table(source, tmp_path / "out", OPEN).facts
    assert facts["counts"]["items"] == count and facts["counts"]["items_with_text"] == 0
    np.testing.assert_array_equal(
        pq.read_table(tmp_path / "out" / "items.parquet").column("item_id").to_pylist(), ids
    )
    assert json.loads((tmp_path / "out" / "domain.json").read_text())["facts"] == facts
