"""What is read from a line does not depend on the lines around it, nor on who reads it."""

import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utgrec.data.blocks import Block
from utgrec.data.lines import CsvLines, JsonLines, Rows
from utgrec.errors import BadTable

SCHEMA = pl.Schema({"user": pl.String, "time": pl.Int64, "tags": pl.List(pl.String)})
JSON = JsonLines(SCHEMA, ("user",))
GOOD = b'{"user": "u", "time": 5, "tags": ["a"]}'


class OneByOne(JsonLines):
    """The same format without the quick way."""

    def quick(self, data):
        return None


def block_of(*lines: bytes, whole: bool = True) -> Block:
    data = b"\n".join(lines) + (b"\n" if whole else b"")
    return Block(1, data, len(lines), True, not whole)


def read(layout, *lines: bytes):
    rows = Rows(block_of(*lines), layout, "x.jsonl")
    frame = rows.mend(rows.frame, list(layout.schema))
    return frame.rows(), sorted(rows.bad), rows.unusable


ODD = [
    b'{"user":"u","time":5}',
    b'{"user": 5, "time": 5, "tags": []}',
    b'{"user": 5.0, "time": 5, "tags": []}',
    b'{"user": true, "time": 5, "tags": []}',
    b'{"user": ["u"], "time": 5, "tags": []}',
    b'{"user": {"a": 1}, "time": 5, "tags": []}',
    b'{"user": "[u]", "time": 5, "tags": []}',
    b'{"user": "12.5", "time": 5, "tags": []}',
    b'{"user": "a\\ud800", "time": 5, "tags": ["\\ud83d\\ude00", "x\\udc00"]}',
    b'{"user": "u", "time": "17", "tags": "one"}',
    b'{"user": "u", "time": 17.6, "tags": null}',
    b'{"user": "u", "time": 1.7e3, "tags": [1, null, 2.5, ["deep", ["er"]], {"k": "v"}]}',
    b'{"user": "u", "time": true, "tags": {}}',
    b'{"user": "u", "time": "soon", "tags": [true]}',
    b'{"user": "u", "time": 99999999999999999999, "tags": []}',
    b'{"user": "u", "user": "v", "time": 5, "time": 6, "tags": []}',
    b'{"rating": NaN, "user": "u", "time": 5, "tags": []}',
    b'{"user": "a\tb", "time": 5}',
    b'{"user": "u", "time": 5, "tags": []',
    b'{"user": "u", "time": 5} x',
    b'{"user": "u"}{"user": "v"}',
    b'{"user": "a\xff", "time": 5}',
    b"\xef\xbb\xbf" + GOOD,
    *(b"", b"   ", b"[1]", b"null", b'"x"', b"{}", b"\x00", b"x" * 300),
    GOOD + b"\r",
    b'{"deep": ' + b"[" * 2000 + b"]" * 2000 + b', "user": "u", "time": 5}',
    b'{"deep": ' + b"[" * 200_000 + b', "user": "u", "time": 5}',
]


@pytest.mark.parametrize("line", ODD, ids=range(len(ODD)))
def test_an_odd_line_among_good_ones_is_read_as_alone(line):
    alone, problem, unusable = read(OneByOne(SCHEMA, ("user",)), line)
    rows, bad, values = read(JSON, *[GOOD] * 70, line, *[GOOD] * 70)
    moved = [(*row[:-1], 71) for row in alone]
    assert rows == [("u", 5, ["a"], n) for n in range(1, 71)] + moved + [
        ("u", 5, ["a"], n) for n in range(72, 142)
    ]
    assert [(71, *b[1:]) for b in problem] == bad
    assert {(71, name): shown for (_, name), shown in unusable.items()} == values


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=5,
)
OBJECTS = st.fixed_dictionaries(
    {}, optional={"user": VALUES, "time": VALUES, "tags": VALUES, "other": VALUES}
)


@st.composite
def lines(draw):
    """A JSON object, now and then with some bytes changed."""
    line = bytearray(
        json.dumps(draw(OBJECTS), ensure_ascii=draw(st.booleans())).encode("utf-8", "replace")
    )
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        place = draw(st.integers(0, len(line) - 1))
        line[place] = draw(st.integers(0, 255))
    return bytes(line).replace(b"\n", b" ")


@settings(deadline=None, max_examples=400, derandomize=True)
@given(st.lists(lines(), min_size=1, max_size=6))
def test_quick_is_slow(many):
    assert read(JSON, *many) == read(OneByOne(SCHEMA, ("user",)), *many)


def test_numbers_of_lines_count_blank_ones():
    rows, bad, _ = read(JSON, GOOD, b"", b"{", GOOD)
    assert [row[-1] for row in rows] == [1, 4] and [b.line for b in bad] == [3]


def test_a_half_line_at_the_end_is_half_a_file():
    with pytest.raises(BadTable, match=r"x\.jsonl: the last line is only half there"):
        Rows(block_of(GOOD, GOOD[:20], whole=False), JSON, "x.jsonl")
    assert Rows(block_of(GOOD, GOOD, whole=False), JSON, "x.jsonl").frame.height == 2
    assert Rows(block_of(GOOD, GOOD[:20]), JSON, "x.jsonl").bad[0].line == 2


CSV = CsvLines(
    ("user", "rating", "time"), pl.Schema({"user": pl.String, "time": pl.Int64}), ("user",)
)


class CsvOneByOne(CsvLines):
    def quick(self, data):
        return None


@pytest.mark.parametrize(
    "line",
    [
        b"u,5.0,17",
        b'"u,v",5.0,17',
        b"u,5.0,17.0",
        b"u,5.0,x",
        b",5.0,17",
        b"u,5.0",
        b"u,5.0,17,1",
        b'"u,5.0,17',
        b"u\xff,5.0,17",
        b"",
        b"u,5.0,17\r",
        b" u ,,+17",
        b"u,5.0,",
    ],
    ids=range(13),
)
def test_an_odd_line_of_csv(line):
    alone, problem, unusable = read(CsvOneByOne(*CSV), line)
    good = b"u,5.0,17"
    rows, bad, values = read(CSV, *[good] * 70, line, *[good] * 70)
    assert rows[70:-70] == [(*row[:-1], 71) for row in alone]
    assert bad == [(71, *b[1:]) for b in problem] and len(rows) + len(bad) in (140, 141)
    assert {(71, name): shown for (_, name), shown in unusable.items()} == values
