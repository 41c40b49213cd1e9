"""Small shops for tests: the same rows in any file format."""

import csv
import gzip
import json
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image

from utgrec.data.rejects import Rejects
from utgrec.data.table import Table, join_tables
from utgrec.data.table_parts import read_parts
from utgrec.data.times import Clock, read_moments

ITEMS: list[dict[str, Any]] = [
    {
        "item_id": "007",
        "title": "Black <b>Tea</b>",
        "brand": "Leaf &amp; Co.",
        "categories": ["Drinks", "Tea"],
        "description": 'Strong, "smoky"\nleaves.',
        "price": 4.5,
        "year": 1999,
        "makers": ["Ann", "Bo"],
    },
    {
        "item_id": "7",
        "title": "Cup",
        "brand": None,
        "categories": ["Kitchen"],
        "description": None,
        "price": 12.25,
        "year": None,
        "makers": None,
    },
    {
        "item_id": "a/b ✨",
        "title": "Pot",
        "brand": "Leaf & Co.",
        "categories": None,
        "description": "Holds one litre",
        "price": None,
        "year": 2004,
        "makers": ["Bo"],
    },
]

EVENT_COLUMNS = ("user_id", "item_id", "timestamp")
# (user, item, seconds); user "u1" took "007" twice at the same moment.
EVENTS: list[tuple[str, str, int]] = [
    ("u2", "7", 1_400_000_300),
    ("u1", "007", 1_400_000_100),
    ("u1", "007", 1_400_000_100),
    ("u1", "a/b ✨", 1_400_000_050),
    ("u2", "007", 1_400_000_200),
    ("u2", "a/b ✨", 1_400_000_400),
    ("u1", "7", 1_400_000_500),
]


def events_as_rows(events: list[tuple[Any, Any, Any]]) -> list[dict[str, Any]]:
    return [dict(zip(EVENT_COLUMNS, event, strict=True)) for event in events]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the format that the file name says."""
    names = list(dict.fromkeys(name for row in rows for name in row)) or list(EVENT_COLUMNS)
    plain = path.name.removesuffix(".gz")
    if plain.endswith(".parquet"):
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(path)
        return path
    if plain.endswith((".jsonl", ".ndjson", ".json")):
        data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    else:
        data = _csv(names, rows, "\t" if plain.endswith(".tsv") else ",")
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def _csv(names: list[str], rows: list[dict[str, Any]], delimiter: str) -> bytes:
    from io import StringIO

    text = StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(names)
    for row in rows:
        cells = (row.get(name) for name in names)
        writer.writerow(
            [json.dumps(c, ensure_ascii=False) if isinstance(c, list) else c for c in cells]
        )
    return text.getvalue().encode()


def write_shop(
    folder: Path,
    items: list[dict[str, Any]] | None = None,
    events: list[tuple[Any, Any, Any]] | None = None,
    *,
    items_file: str = "items.jsonl",
    events_file: str = "interactions.csv",
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / items_file, ITEMS if items is None else items)
    write_rows(folder / events_file, events_as_rows(list(EVENTS) if events is None else events))
    return folder


def picture(color: str = "red", size: tuple[int, int] = (8, 6), kind: str = "PNG") -> bytes:
    """The bytes of a one-coloured picture."""
    stream = BytesIO()
    Image.new("RGB", size, color).save(stream, kind)
    return stream.getvalue()


def read_table(path: Path, rejects: Rejects, columns: list[str] | None = None) -> Table:
    """A table as a whole."""
    return join_tables(read_parts(path, rejects, columns))


class Column(NamedTuple):
    """A column of times as a whole."""

    ms: npt.NDArray[np.int64]
    problem: pl.Series
    facts: dict[str, Any]

    @property
    def unit(self) -> str:
        return str(self.facts["unit"])


def read_times(values: Any, unit: Any = "auto", **how: str) -> Column:
    clock, moments = Clock(unit, **how), read_moments(values, **how)
    clock.see(moments)
    return Column(*clock.read(moments), clock.facts)
