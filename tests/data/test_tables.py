"""Tables: found by name, read from every format, with a reason for every row left out."""

import csv
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shop_files import read_table, write_rows

from utgrec.data import text_tables
from utgrec.data.columns import INTERACTION_ROLES, ITEM_ROLES, find_columns, words_of
from utgrec.data.rejects import Rejects
from utgrec.data.table import join_tables
from utgrec.data.table_files import INTERACTION_NAMES, ITEM_NAMES, find_table
from utgrec.data.table_parts import column_names
from utgrec.data.text_tables import read_json, read_separated
from utgrec.errors import BadTable

FILES = ["t.csv", "t.tsv", "t.csv.gz", "t.jsonl", "t.ndjson.gz", "t.json", "t.parquet", "T.CSV"]
ROWS: list[dict[str, Any]] = [
    {"id": "007", "name": "tea, black", "note": "two\nlines"},
    {"id": "1e3", "name": '12" record', "note": "é ✨"},
    {"id": "NA", "name": "", "note": "null"},
]


@pytest.mark.parametrize("name", FILES)
def test_text_comes_back_exactly_as_written(tmp_path: Path, name: str) -> None:
    rejects = Rejects("error")
    write_rows(tmp_path / name.lower(), ROWS).rename(tmp_path / name)
    path = tmp_path / name
    read = read_table(path, rejects)
    assert column_names(path) == ["id", "name", "note"]
    assert [read.values(column) for column in ("id", "name", "note")] == [
        [row[column] for row in ROWS] for column in ("id", "name", "note")
    ]
    assert list(read_table(path, rejects, ["name"]).columns) == ["name"]
    assert rejects.table().height == 0


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=5)
PLAIN = st.text(st.characters(codec="utf-8", exclude_characters='",\r\n\x00'), max_size=5)


@given(
    st.lists(st.one_of(st.tuples(PLAIN, PLAIN, PLAIN), st.tuples(CELLS, CELLS, CELLS))),
    st.integers(1, 80),
    st.sampled_from(["\n", "\r\n"]),
)
def test_csv_is_read_alike_in_blocks_of_any_size(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str, str]],
    size: int,
    end: str,
) -> None:
    """Quick blocks and careful ones, fields that go on in the next block: what Python reads."""
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    with open(path, "w", encoding="utf-8", newline="") as stream:
        for row in [("a", "b", "c"), *rows]:
            quotes = csv.QUOTE_ALL if set('",\r\n') & set("".join(row)) else csv.QUOTE_MINIMAL
            csv.writer(stream, lineterminator=end, quoting=quotes).writerow(row)
    rejects = Rejects("error")
    read = join_tables(read_separated(path, "csv", rejects, block_bytes=size))
    assert rejects.table().height == 0
    found = list(zip(*(read.values(name) for name in "abc"), strict=True))
    assert found == rows
    if not any(set('"\r\n') & set("".join(row)) for row in rows):
        assert read.rows.tolist() == list(range(2, len(rows) + 2))


@pytest.mark.parametrize("size", [4, 7, 30, 10**6])
def test_rows_that_cannot_be_read_are_named_alike_in_blocks_of_any_size(
    tmp_path: Path, size: int
) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b'id,x\n1,"a\nb"\n2\n3,\xff\n4,d,e\n\n5,f\n6,"g')
    rejects = Rejects("reject")
    read = join_tables(read_separated(path, "csv", rejects, block_bytes=size))
    assert read.values("id") == ["1", "5"] and read.rows.tolist() == [2, 8]
    assert [row[1] for row in rejects.table().rows()] == [4, 5, 6, 9]
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id": 1}\n{"id":\n[2]\n{"id": "\xff"}\n\n{"id": 5, "z": 1}')
    rejects = Rejects("reject")
    read = join_tables(read_json(path, rejects, block_bytes=size))
    assert read.values("id") == [1, 5] and read.values("z") == [None, 1]
    assert read.rows.tolist() == [1, 6] and [row[1] for row in rejects.table().rows()] == [2, 3, 4]


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    for name, data in {
        "t.csv": b"\xef\xbb\xbfid,x\r\n007,1\r\n",
        "q.csv": b'\xef\xbb\xbfid,x\r\n"007",1\r\n',
        "t.jsonl": b'\xef\xbb\xbf{"id": "007", "x": "1"}\r\n\r\n',
    }.items():
        (tmp_path / name).write_bytes(data)
        read = read_table(tmp_path / name, Rejects("error"))
        assert {column: read.values(column) for column in read.columns} == {
            "id": ["007"],
            "x": ["1"],
        }


def test_rows_that_cannot_be_read_name_their_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b'id,x\n1,"a\nb"\n2\n3,\xff\n4,d,e\n\n5,"f"\n')
    (tmp_path / "t.jsonl").write_bytes(b'{"id": 1}\n{"id":\n[2]\n{"id": "\xff"}\n\n{"id": 5}\n')
    csv_rejects, json_rejects = Rejects("reject"), Rejects("reject")
    read = read_table(tmp_path / "t.csv", csv_rejects)
    assert read.values("id") == ["1", "5"]
    assert read.rows.tolist() == [2, 8]
    seen = csv_rejects.table().select("row", "reason").rows()
    assert seen == [(4, "broken row"), (5, "broken encoding"), (6, "broken row")]
    assert read_table(tmp_path / "t.jsonl", json_rejects).rows.tolist() == [1, 6]
    seen = json_rejects.table().select("row", "reason").rows()
    assert seen == [(2, "broken row"), (3, "broken row"), (4, "broken encoding")]


@pytest.mark.parametrize("size", [4, 9, 30, 10**6])
@pytest.mark.parametrize(
    ("rows", "left", "broken"),
    [
        ('1,"open\n2,x\n3,y\n', {3: "2", 4: "3"}, [2]),  # to the end of the file
        ('1,"open\n2,x\n3,"y"\n4,z\n', {3: "2", 4: "3", 5: "4"}, [2]),  # to the next quote
        ('1,"open\n2,"open\n3,"open', {}, [2, 3, 4]),
        ('1,"open\n\n2,x', {4: "2"}, [2]),
        ('1,"two\nlines"\n2,"x"', {2: "1", 4: "2"}, []),
        ('1,5" pipe\n2,"5" pipe"', {2: "1", 3: "2"}, []),  # harmless within a line
    ],
)
def test_an_open_quote_takes_no_other_rows_with_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: str,
    left: dict[int, str],
    broken: list[int],
    size: int,
) -> None:
    monkeypatch.setattr(text_tables, "PIECE_BYTES", size // 3)
    monkeypatch.setattr(text_tables, "CAREFUL_ROWS", size // 4)
    path = tmp_path / "t.csv"
    path.write_text(f"id,x\n{rows}")
    rejects = Rejects("reject")
    read = join_tables(read_separated(path, "csv", rejects, block_bytes=size))
    assert dict(zip(read.rows.tolist(), read.values("id"), strict=True)) == left
    assert rejects.table()["row"].to_list() == broken
    assert set(rejects.counts()) <= {"broken row"}


def test_a_quote_that_is_open_for_longer_than_a_field_may_be_takes_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('id,x\n0,"open\n' + "".join(f"{n},{'x' * 50}\n" for n in range(1, 6000)))
    rejects = Rejects("reject")
    read = read_table(path, rejects)
    assert read.values("id") == [str(n) for n in range(1, 6000)]
    assert rejects.table().select("row", "reason").rows() == [(2, "broken row")]


def test_quoted_rows_are_held_some_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,x\n" + "".join(f'{n},"a\nb"\n' for n in range(150_000)))
    read = list(read_separated(path, "csv", Rejects("error")))
    assert [len(part.rows) for part in read] == [65_536, 65_536, 18_928]
    assert join_tables(iter(read)).values("id") == [str(n) for n in range(150_000)]
    assert read[-1].rows[-1] == 2 + 2 * 149_999


def test_columns_without_values_and_of_mixed_types(tmp_path: Path) -> None:
    rows = [{"id": 1, "x": None}] * 5000 + [{"id": "b", "x": None, "late": [1, "a", None]}]
    for name in ("t.jsonl", "t.jsonl.gz"):
        read = read_table(write_rows(tmp_path / name, rows), Rejects("error"))
        assert read.values("id")[-2:] == [1, "b"]
        assert read.values("late")[-2:] == [None, [1, "a", None]]
        assert set(read.values("x")) == {None}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.csv", b"", "no header"),
        ("t.csv", "a,b\n1,2\n".encode("utf-16"), "UTF-16"),
        ("t.csv", b"a,b,a\n1,2,3\n", "names a column twice: a"),
        ("t.csv", b"\xff,b\n", "line 1: broken encoding"),
        ("t.csv.gz", gzip.compress(b"a,b\n1,2\n" * 100, mtime=0)[:-9], "not a whole gzip file"),
        ("t.csv.gz", b"a,b\n1,2\n", "not a whole gzip file"),
        ("t.json", b'[{"a": 1}]', "one JSON array"),
        ("t.parquet", b"PAR1 not really", "not a readable Parquet file"),
        ("t.xlsx", b"", "no known table format"),
    ],
)
def test_unusable_files(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadTable, match=message):
        column_names(tmp_path / name)
        read_table(tmp_path / name, Rejects("error"))


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["items.jsonl", "ratings.csv"], ("items.jsonl", "ratings.csv")),
        (["movies.csv", "ratings.csv", "links.csv"], ("movies.csv", "ratings.csv")),
        (["meta_Books.jsonl.gz", "reviews.jsonl.gz"], ("meta_Books.jsonl.gz", "reviews.jsonl.gz")),
        (["Products.TSV", "Events.parquet"], ("Products.TSV", "Events.parquet")),
        (["items.csv", "products.csv", "interactions.csv"], ("items.csv", "interactions.csv")),
    ],
)
def test_files_are_found_by_name(tmp_path: Path, files: list[str], found: tuple[str, str]) -> None:
    for name in files:
        (tmp_path / name).touch()
    assert find_table(tmp_path, ITEM_NAMES, None, "items").name == found[0]
    assert find_table(tmp_path, INTERACTION_NAMES, None, "interactions").name == found[1]


def test_missing_and_ambiguous_files_name_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "stuff.csv").touch()
    with pytest.raises(BadTable, match=r"it has stuff\.csv.*--items"):
        find_table(tmp_path, ITEM_NAMES, None, "items")
    (tmp_path / "items.csv").touch()
    (tmp_path / "items.jsonl").touch()
    with pytest.raises(BadTable, match=r"items\.csv, items\.jsonl; say which with --items"):
        find_table(tmp_path, ITEM_NAMES, None, "items")
    assert find_table(tmp_path, ITEM_NAMES, "stuff.csv", "items").name == "stuff.csv"
    with pytest.raises(BadTable, match="is no file"):
        find_table(tmp_path, ITEM_NAMES, "none.csv", "items")


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        (["user_id", "item_id", "timestamp"], ["user_id", "item_id", "timestamp"]),
        (["userId", "movieId", "rating", "timestamp"], ["userId", "movieId", "timestamp"]),
        (
            ["reviewerID", "asin", "reviewTime", "unixReviewTime"],
            ["reviewerID", "asin", "unixReviewTime"],
        ),
        (
            ["rating", "title", "text", "asin", "parent_asin", "user_id", "timestamp"],
            ["user_id", "parent_asin", "timestamp"],
        ),
        (["customer_id", "article_id", "t_dat"], ["customer_id", "article_id", "t_dat"]),
        (["User", "SKU", "Date"], ["User", "SKU", "Date"]),
    ],
)
def test_usual_columns_of_logs(seen: list[str], found: list[str]) -> None:
    required = ["user", "item", "timestamp"]
    assert list(find_columns("f", seen, INTERACTION_ROLES, {}, required).values()) == found


def test_columns_missing_ambiguous_and_told() -> None:
    with pytest.raises(BadTable, match=r"columns are colour, size.*--column item_id=NAME"):
        find_columns("f", ["colour", "size"], ITEM_ROLES, {}, ["item_id"])
    with pytest.raises(BadTable, match=r"could be item_id: sku, asin.*--column item_id=NAME"):
        find_columns("f", ["sku", "asin"], ITEM_ROLES, {}, ["item_id"])
    assert find_columns("f", ["sku", "asin"], ITEM_ROLES, {"item_id": "sku"}, []) == {
        "item_id": "sku"
    }
    with pytest.raises(BadTable, match="no column 'ean'"):
        find_columns("f", ["sku"], ITEM_ROLES, {"item_id": "ean"}, [])
    assert find_columns("f", ["id", "title"], ITEM_ROLES, {"title": ""}, []) == {"item_id": "id"}


def test_words_of_a_column_name() -> None:
    assert words_of("imdbId") == words_of("imdb_id") == ["imdb", "id"]
    assert words_of("android") == ["android"]


def test_texts_in_parquet_that_are_no_utf_8_are_named(tmp_path: Path) -> None:
    wrong = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")]
    )
    pq.write_table(pa.table({"item_id": wrong}), tmp_path / "t.parquet")
    with pytest.raises(BadTable, match=r"t\.parquet is not a readable Parquet file .*UTF8"):
        read_table(tmp_path / "t.parquet", Rejects("reject"))


def test_notes_in_parquet_that_are_no_utf_8_do_not_matter(tmp_path: Path) -> None:
    for number, rows in enumerate(([], ["a"])):
        table = pa.table({"item_id": pa.array(rows, pa.string())})
        path = tmp_path / f"{number}.parquet"
        pq.write_table(table.replace_schema_metadata({b"\xff\xff": b"\xff"}), path)
        assert read_table(path, Rejects("reject")).values("item_id") == rows


def test_rows_are_counted_from_one_in_parquet(tmp_path: Path) -> None:
    read = read_table(write_rows(tmp_path / "t.parquet", ROWS), Rejects("error"))
    np.testing.assert_array_equal(read.rows, [1, 2, 3])
