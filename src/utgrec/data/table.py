"""Read the plain tables of a shop: CSV, TSV, JSON lines and Parquet, also gzip and zstd.

CSV and TSV values are text, exactly as written: an item called 007 stays 007. Column types are
decided later, from the values of a whole column.
"""

import bisect
import csv
import io
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from utgrec.data.rejects import Rejects
from utgrec.data.table_files import BOM, format_of, lines, open_table, unpacked
from utgrec.errors import BadTable

T = TypeVar("T")

SEPARATORS = {"csv": ",", "tsv": "\t"}

# JSON keys are collected from this many objects when only some columns are read.
PEEK = 1000


class Table(NamedTuple):
    """Columns of equal length; values are text (CSV, TSV) or whatever type the file has."""

    rows: npt.NDArray[np.int64]  # (n,), line number, or row number counted from 1 (Parquet)
    columns: dict[str, pl.Series | list[Any]]
    files: tuple[str, ...] = ("",)  # names of the files it was read from
    ends: tuple[int, ...] = ()  # where each file but the last one ends in the rows

    def file(self, place: int) -> str:
        """The name of the file that a row was read from."""
        return self.files[bisect.bisect_right(self.ends, place)]

    def file_names(self) -> pl.Series:
        """The same for every row."""
        counts = np.diff([0, *self.ends, len(self.rows)])
        return pl.Series(np.repeat(np.arange(len(self.files)), counts)).replace_strict(
            list(range(len(self.files))), list(self.files), return_dtype=pl.String
        )

    def values(self, name: str) -> list[Any]:
        """One column as Python values."""
        column = self.columns[name]
        return column.to_list() if isinstance(column, pl.Series) else column


def read_tables(
    paths: Sequence[Path], rejects: Rejects, columns: Sequence[str] | None = None
) -> Table:
    """One table of several files, one after the other; a column that a file lacks is empty there.

    Raises:
        BadTable: a file as a whole cannot be read.
    """
    return join_tables([read_table(path, rejects, columns) for path in paths])


def join_tables(tables: Sequence[Table]) -> Table:
    """Tables of one file each, one after the other; a column that one lacks is empty there."""
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


def column_names(path: Path) -> list[str]:
    """The columns of a table, in its order; for JSON lines those of its first 1,000 objects.

    Raises:
        BadTable: the file cannot be read, is empty, or names a column twice.
    """
    kind = format_of(path)
    if kind == "parquet":
        return [str(name) for name in _parquet(path, lambda file: file.schema_arrow.names)]
    if kind == "jsonl":
        objects = (value for _, value, _ in _json_lines(path) if value is not None)
        names: dict[str, None] = {}
        for value in itertools.islice(objects, PEEK):
            names.update(dict.fromkeys(value))
        return list(names)
    return _header(path, kind)


def read_table(path: Path, rejects: Rejects, columns: Sequence[str] | None = None) -> Table:
    """Read a table, or some of its columns; rows that cannot be parsed go to `rejects`.

    Raises:
        BadTable: the file as a whole cannot be read.
    """
    kind = format_of(path)
    if kind == "parquet":
        chosen = list(columns) if columns is not None else None
        frame = _parquet(path, lambda file: pl.DataFrame(pl.from_arrow(file.read(chosen))))
        return Table(
            np.arange(1, frame.height + 1, dtype=np.int64),
            {name: frame[name] for name in frame.columns},
            (path.name,),
        )
    if kind == "jsonl":
        return _read_json(path, rejects, columns)
    return read_separated(path, kind, rejects, columns)


def read_separated(
    path: Path, kind: str, rejects: Rejects, columns: Sequence[str] | None = None
) -> Table:
    """Read a file as "csv" or "tsv", whatever its name says."""
    return _read_plain_csv(path, kind, columns) or _read_any_csv(path, kind, rejects, columns)


def _read_json(path: Path, rejects: Rejects, columns: Sequence[str] | None) -> Table:
    rows: list[int] = []
    objects: list[dict[str, Any]] = []
    for line, value, problem in _json_lines(path):
        if value is None:
            reason, detail = problem
            rejects.add(path.name, line, reason, detail=detail)
            continue
        rows.append(line)
        objects.append(value if columns is None else {name: value.get(name) for name in columns})
    names = (
        list(columns) if columns is not None else list(dict.fromkeys(k for o in objects for k in o))
    )
    return Table(
        np.array(rows, dtype=np.int64),
        {name: [value.get(name) for value in objects] for name in names},
        (path.name,),
    )


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | None, tuple[str, str]]]:
    """Every non-blank line: its number, its object, or None and (reason, detail)."""
    for number, raw in enumerate(lines(path), start=1):
        if not raw.strip():
            continue
        if number == 1 and raw.lstrip().startswith(b"["):
            raise BadTable(
                f"{path.name} is one JSON array; write one object a line (JSON lines) instead"
            )
        try:
            value = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            yield number, None, ("broken encoding", f"not UTF-8 ({error.reason})")
        except (ValueError, RecursionError) as error:
            yield number, None, ("broken row", f"not valid JSON ({error})")
        else:
            if isinstance(value, dict):
                yield number, value, ("", "")
            else:
                yield number, None, ("broken row", f"a JSON {type(value).__name__}, not an object")


def _read_plain_csv(path: Path, kind: str, columns: Sequence[str] | None) -> Table | None:
    """The quick way, for files without quotes in which every line has all its fields."""
    names = _header(path, kind)
    with open_table(path) as stream:
        data = unpacked(path, stream.read).removeprefix(BOM)
    separator = SEPARATORS[kind]
    line_count = data.count(b"\n") + (not data.endswith(b"\n"))
    whole = data.count(separator.encode()) == line_count * (len(names) - 1)
    if b'"' in data or not whole or len(names) < 2 or data.count(b"\r") != data.count(b"\r\n"):
        return None
    try:
        frame = pl.read_csv(
            data, separator=separator, infer_schema=False, quote_char=None
        ).fill_null("")
    except pl.exceptions.PolarsError:
        return None  # the slow way finds the line and says what is wrong with it
    if frame.height != line_count - 1:
        return None
    frame.columns = names
    chosen = [name for name in names if name and (columns is None or name in columns)]
    return Table(
        np.arange(2, frame.height + 2, dtype=np.int64),
        {name: frame[name] for name in chosen},
        (path.name,),
    )


def _read_any_csv(path: Path, kind: str, rejects: Rejects, columns: Sequence[str] | None) -> Table:
    """The careful way: quotes, line breaks in fields, and a reason for every row left out."""
    names = _header(path, kind)
    chosen = [name for name in names if name and (columns is None or name in columns)]
    places = [names.index(name) for name in chosen]
    rows: list[int] = []
    values: list[list[str]] = [[] for _ in chosen]
    with open_table(path) as stream:
        # Bytes that are not UTF-8 become lone surrogates, so that they stay within their row.
        text = io.TextIOWrapper(
            cast(BinaryIO, stream), encoding="utf-8-sig", errors="surrogateescape", newline=""
        )
        reader = csv.reader(text, delimiter=SEPARATORS[kind])
        unpacked(path, lambda: next(reader))
        while True:
            line = reader.line_num + 1
            try:
                fields = unpacked(path, lambda: next(reader, None))
            except csv.Error as error:
                rejects.add(path.name, line, "broken row", detail=f"{error}; an unclosed quote?")
                continue
            if fields is None:
                break
            if not fields:
                continue
            if not "".join(fields).isascii() and _is_broken(fields):
                rejects.add(path.name, line, "broken encoding", detail="not UTF-8")
            elif len(fields) != len(names):
                detail = f"{len(fields)} fields, the header has {len(names)}"
                rejects.add(path.name, line, "broken row", detail=detail)
            else:
                rows.append(line)
                for place, column in zip(places, values, strict=True):
                    column.append(fields[place])
    columns_read: dict[str, pl.Series | list[Any]] = {
        name: pl.Series(name, column, dtype=pl.String)
        for name, column in zip(chosen, values, strict=True)
    }
    return Table(np.array(rows, dtype=np.int64), columns_read, (path.name,))


def _header(path: Path, kind: str) -> list[str]:
    with open_table(path) as stream:
        first = unpacked(path, stream.readline)
    if first.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadTable(f"{path.name} is UTF-16; save it as UTF-8")
    try:
        line = first.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadTable(
            f"{path.name}, line 1: broken encoding, not UTF-8 ({error.reason}); save it as UTF-8"
        ) from error
    try:
        fields = next(csv.reader([line], delimiter=SEPARATORS[kind]), [])
    except csv.Error as error:
        raise BadTable(
            f"{path.name}, line 1: no header that can be read ({error}); lines must end in \\n"
        ) from error
    names = [name.strip() for name in fields]
    if not any(names):
        raise BadTable(f"{path.name} has no header; its first line must name the columns")
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise BadTable(f"{path.name} names a column twice: {', '.join(twice)}; rename one of them")
    return names


def _is_broken(fields: list[str]) -> bool:
    return any("\udc80" <= letter <= "\udcff" for field in fields for letter in field)


def _parquet(path: Path, read: Callable[[Any], T]) -> T:
    """Do one read of a Parquet file; by pyarrow, since polars panics on some damaged files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise BadTable(f"{path.name} names a column twice: {', '.join(twice)}; rename one")
            return read(file)
    except (pa.ArrowException, pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise BadTable(f"{path.name} is not a readable Parquet file ({error})") from error
