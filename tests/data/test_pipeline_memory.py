"""What is held while a domain is made: a part at a time, and what stays, however much is read."""

import json
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from utgrec.catalog import Domain
from utgrec.data.options import TableOptions
from utgrec.data.pipeline import make_domain
from utgrec.data.prepare import clean_items
from utgrec.data.table import Table
from utgrec.data.tables_source import Reading, TablesSource, make_plan

MAKE = """
import sys
from pathlib import Path
from utgrec.data.prepare import TableOptions, prepare_table
prepare_table(Path(sys.argv[1]), Path(sys.argv[2]), TableOptions(k_core=5))
from utgrec.stages import peak_memory_mib
print(round(peak_memory_mib()))
"""


class Column(list[Any]):
    """A column whose life can be watched."""

    __hash__ = object.__hash__  # type: ignore[assignment]


class Watched:
    """Hands out parts, and notes how many of them are alive at the same time."""

    def __init__(self, parts: int, rows: int) -> None:
        self.parts, self.rows, self.most = parts, rows, 0
        self._alive: weakref.WeakSet[Column] = weakref.WeakSet()

    def column(self, values: list[Any]) -> Column:
        column = Column(values)
        self._alive.add(column)
        self.most = max(self.most, len(self._alive))
        return column


def test_one_part_at_a_time(tmp_path: Path) -> None:
    items, log = Watched(40, 50), Watched(40, 300)

    def item_parts(*_: Any) -> Iterator[Table]:
        for part in range(items.parts):
            names = [f"i{part * items.rows + n}" for n in range(items.rows)]
            ids = {"item_id": items.column(names), "title": [f"T {name}" for name in names]}
            yield Table(np.arange(1, items.rows + 1), ids, ("items",))

    def log_parts(*_: Any) -> Iterator[Table]:
        for part in range(log.parts):
            numbers = range(part * log.rows, (part + 1) * log.rows)
            columns: dict[str, Any] = {
                "user": log.column([f"u{n % 7}" if n % 3 == 0 else f"once {n}" for n in numbers]),
                "item": [f"i{n % 11}" for n in numbers],
                "time": [1_400_000_000 + n for n in numbers],
            }
            yield Table(np.arange(1, log.rows + 1), columns, ("log",))

    options = TableOptions(name="shop")
    reading = Reading(
        items=item_parts,
        log=log_parts,
        id_column="item_id",
        roles={"user": "user", "item": "item", "timestamp": "time"},
        clean=lambda table: clean_items(table, options, "item_id", tmp_path),
    )
    source = TablesSource(tmp_path / "nothing", [], reading, options.log)
    make_domain(source, tmp_path / "out", make_plan(options))
    domain = Domain.open(tmp_path / "out")
    assert domain.catalog.titles == [f"T i{n}" for n in range(11)]
    assert domain.user_count == 7 and domain.interaction_count == 4000
    assert items.most <= 3 and log.most <= 3


@pytest.mark.slow
def test_memory_does_not_grow_with_the_input(tmp_path: Path) -> None:
    """Four times the rows, the same that stays: the same peak, but for the tables of counts."""
    peaks = []
    for size in (1, 4):
        source = tmp_path / f"shop{size}"
        source.mkdir()
        with open(source / "interactions.csv", "w") as stream:
            stream.write("user_id,item_id,timestamp\n")
            for n in range(1_200_000 * size):
                user = f"regular{n % 60_000}" if n < 600_000 else f"once only, nobody knows {n}"
                stream.write(f'"{user}",item{n % 5000},{1_400_000_000 + n}\n')
        with open(source / "items.jsonl", "w") as stream:
            for n in range(30_000 * size):
                row = {"item_id": f"item{n}", "title": f"T{n}", "description": "a b c d " * 250}
                stream.write(json.dumps(row) + "\n")
        command = [sys.executable, "-c", MAKE, str(source), str(tmp_path / f"out{size}")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(int(done.stdout))
        left = Domain.open(tmp_path / f"out{size}")
        assert (left.user_count, len(left.catalog), left.interaction_count) == (
            60_000,
            5000,
            600_000,
        )
    assert peaks[1] < peaks[0] + 16 * 3_600_000 / 2**20 + 30, peaks  # MiB
