"""Read the plain tables of a shop, part by part: CSV, TSV, JSON lines and Parquet; gzip and zstd.

No more than one part is held, so memory does not grow with the files.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from utgrec.data.blocks import Told
from utgrec.data.rejects import Rejects
from utgrec.data.table import Table
from utgrec.data.table_files import format_of
from utgrec.data.text_tables import header_of, read_json, read_separated
from utgrec.errors import BadTable

PEEK_BYTES = 2**18
PARQUET_ROWS = 2**16
PARQUET_BUFFER = 2**20  # bytes of a column that are read at once, whatever the size of its chunk


def read_parts(
    path: Path, rejects: Rejects, columns: Sequence[str] | None = None, told: Told | None = None
) -> Iterator[Table]:
    """The parts of a table, or of some of its columns; rows that cannot be parsed go to `rejects`.

    There is at least one part. `told` hears how many bytes of a text file were read.

    Raises:
        BadTable: the file as a whole cannot be read.
    """
    kind = format_of(path)
    if kind == "parquet":
        return _read_parquet(path, columns)
    if kind == "jsonl":
        return read_json(path, rejects, columns, told)
    return read_separated(path, kind, rejects, columns, told)


def column_names(path: Path) -> list[str]:
    """The columns of a table, in its order; for JSON lines those of its first objects (256 KiB).

    Raises:
        BadTable: the file cannot be read, is empty, or names a column twice.
    """
    kind = format_of(path)
    if kind == "parquet":
        with _parquet(path) as file:
            return list(file.schema_arrow.names)
    if kind == "jsonl":
        first = read_json(path, Rejects("reject", most=0), block_bytes=PEEK_BYTES)
        return list(next(first).columns)
    return header_of(path, kind)


def _read_parquet(path: Path, columns: Sequence[str] | None) -> Iterator[Table]:
    with _parquet(path) as file:
        names = file.schema_arrow.names
        chosen = [name for name in names if columns is None or name in columns]
        first = 1
        for batch in file.iter_batches(PARQUET_ROWS, columns=chosen):
            yield _of_arrow(path.name, first, batch)
            first += batch.num_rows
        if first == 1:
            yield _of_arrow(path.name, first, file.schema_arrow.empty_table().select(chosen))


@contextlib.contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    """An open Parquet file; by pyarrow, since polars panics on some damaged files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, buffer_size=PARQUET_BUFFER) as file:
            names = file.schema_arrow.names
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise BadTable(f"{path.name} names a column twice: {', '.join(twice)}; rename one")
            yield file
    except (
        *(pa.ArrowException, OSError, ValueError),
        *(pl.exceptions.PolarsError, pl.exceptions.PanicException),
    ) as error:
        raise BadTable(
            f"{path.name} is not a readable Parquet file ({error}); copy it or write it again"
        ) from error


def _of_arrow(file: str, first: int, data: Any) -> Table:
    # Polars panics on what is no UTF-8, in texts and in notes.
    data.validate(full=True)
    frame = pl.DataFrame(pl.from_arrow(data.replace_schema_metadata(None)))
    return Table(
        np.arange(first, first + frame.height, dtype=np.int64),
        {name: frame[name] for name in frame.columns},
        (file,),
    )
