"""A table, or a part of one: columns of equal length, and where each row stands in its file.

CSV and TSV values are text, exactly as written: an item called 007 stays 007. Column types are
decided later, from the values of a whole column.
"""

import bisect
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl


class Table(NamedTuple):
    """Columns of equal length; values are text (CSV, TSV) or whatever type the file has."""

    rows: npt.NDArray[np.int64]  # (n,), line number, or row number counted from 1 (Parquet)
    columns: dict[str, pl.Series | list[Any]]
    files: tuple[str, ...] = ("",)  # names of the files it was read from
    ends: tuple[int, ...] = ()  # where each file but the last one ends in the rows

    def file(self, place: int) -> str:
        """The name of the file that a row was read from."""
        return self.files[bisect.bisect_right(self.ends, place)]

    def column(self, name: str) -> pl.Series | list[Any]:
        """One column; empty if the table has none of that name."""
        found = self.columns.get(name)
        return [None] * len(self.rows) if found is None else found

    def values(self, name: str) -> list[Any]:
        """The same as Python values."""
        column = self.column(name)
        return column.to_list() if isinstance(column, pl.Series) else column

    def take(self, places: npt.NDArray[np.int64]) -> "Table":
        """Some rows of a part of one file."""
        taken: dict[str, pl.Series | list[Any]] = {
            name: column.gather(places)
            if isinstance(column, pl.Series)
            else [column[place] for place in places]
            for name, column in self.columns.items()
        }
        return Table(self.rows[places], taken, self.files)


def join_tables(parts: Iterable[Table]) -> Table:
    """Parts of one file each, one after the other; a column that one lacks is empty there."""
    tables = list(parts)
    if len(tables) == 1:
        return tables[0]
    names = dict.fromkeys(name for table in tables for name in table.columns)
    lengths = [len(table.rows) for table in tables]
    return Table(
        np.concatenate([table.rows for table in tables]),
        {name: _joined([table.columns.get(name) for table in tables], lengths) for name in names},
        tuple(table.files[0] for table in tables),
        tuple(int(end) for end in np.cumsum(lengths)[:-1]),
    )


def _joined(
    parts: Sequence[pl.Series | list[Any] | None], lengths: Sequence[int]
) -> pl.Series | list[Any]:
    """Parts of one column in one piece, as a Series if all have one type."""
    types = {
        part.dtype if isinstance(part, pl.Series) else None for part in parts if part is not None
    }
    if len(types) == 1 and None not in types:
        (kind,) = types
        return pl.concat(
            [
                part if isinstance(part, pl.Series) else pl.repeat(None, n, dtype=kind, eager=True)
                for part, n in zip(parts, lengths, strict=True)
            ]
        )
    joined: list[Any] = []
    for part, length in zip(parts, lengths, strict=True):
        values = part.to_list() if isinstance(part, pl.Series) else part
        joined += [None] * length if values is None else values
    return joined
