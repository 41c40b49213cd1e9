"""Read CSV, TSV and JSON lines part by part, in memory that does not grow with the file.

Each block of a CSV file is read quickly if it can be (no quotes, every line with all its fields),
else with care: quotes, line breaks in fields, and a reason for every row left out.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from utgrec.data.blocks import BLOCK_BYTES, Block, BlockReader, Told
from utgrec.data.rejects import Rejects
from utgrec.data.table import Table
from utgrec.data.table_files import first_line
from utgrec.errors import BadTable

SEPARATORS = {"csv": ",", "tsv": "\t"}
JSON_BLOCK_BYTES = BLOCK_BYTES // 8  # JSON values take about ten times the room of their text
PIECE_BYTES = 2**20  # that become lines of text at once
CAREFUL_ROWS = 2**16  # of one part; Python's texts take many times their room in the file


def read_separated(
    path: Path,
    kind: str,
    rejects: Rejects,
    columns: Sequence[str] | None = None,
    told: Told | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[Table]:
    """The parts of a file that is "csv" or "tsv", whatever its name says."""
    names = header_of(path, kind)
    chosen = [n for n, name in enumerate(names) if name and (columns is None or name in columns)]
    lines = _Lines(BlockReader(path, block_bytes=block_bytes, told=told), skip=1)
    careful = _Careful(path.name, lines, kind, names, chosen)
    empty = True
    while (block := lines.next_block()) is not None:
        part = _quick(path.name, block, lines.number + 1, kind, names, chosen)
        if part is None:
            parts = careful.read(block, rejects)
        else:
            lines.number += block.lines
            parts = iter([part] if len(part.rows) else [])
        for part in parts:
            empty = False
            yield part
    if empty:
        nothing: dict[str, pl.Series | list[Any]] = {
            names[n]: pl.Series(names[n], [], dtype=pl.String) for n in chosen
        }
        yield Table(np.zeros(0, dtype=np.int64), nothing, (path.name,))


def header_of(path: Path, kind: str) -> list[str]:
    """The names of the columns of a CSV or TSV file.

    Raises:
        BadTable: it has none, they are no UTF-8, or one stands there twice.
    """
    first = first_line(path)
    if first.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadTable(f"{path.name} is UTF-16; save it as UTF-8")
    try:
        line = first.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadTable(
            f"{path.name}, line 1: broken encoding, not UTF-8 ({error.reason}); save it as UTF-8"
        ) from error
    if line.count('"') % 2:
        raise BadTable(
            f"{path.name}, line 1: a quote is not closed; the names of the columns must stand in "
            "one line"
        )
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


def read_json(
    path: Path,
    rejects: Rejects,
    columns: Sequence[str] | None = None,
    told: Told | None = None,
    block_bytes: int = JSON_BLOCK_BYTES,
) -> Iterator[Table]:
    """The parts of a file of JSON lines; without `columns`, each part has those of its objects."""
    empty = True
    for block in BlockReader(path, block_bytes=block_bytes, told=told):
        rows: list[int] = []
        objects: list[dict[str, Any]] = []
        for line, value, (reason, detail) in _objects(path.name, block):
            if value is None:
                rejects.add(path.name, line, reason, detail=detail)
            else:
                rows.append(line)
                objects.append(value)
        names = columns if columns is not None else dict.fromkeys(k for o in objects for k in o)
        if objects:
            empty = False
            values: dict[str, pl.Series | list[Any]] = {
                name: [value.get(name) for value in objects] for name in names
            }
            yield Table(np.array(rows, dtype=np.int64), values, (path.name,))
    if empty:
        yield Table(np.zeros(0, dtype=np.int64), {n: [] for n in columns or ()}, (path.name,))


def _objects(
    file: str, block: Block
) -> Iterator[tuple[int, dict[str, Any] | None, tuple[str, str]]]:
    """Every non-blank line: its number, its object, or None and (reason, detail)."""
    for number, raw in enumerate(block.data.split(b"\n"), start=block.first_line):
        if not raw.strip():
            continue
        if number == 1 and raw.lstrip().startswith(b"["):
            raise BadTable(
                f"{file} is one JSON array; write one object a line (JSON lines) instead"
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


class _Lines:
    """The lines of a file as text, one by one, and the blocks that nobody began to take apart."""

    def __init__(self, blocks: BlockReader, skip: int) -> None:
        self._blocks = iter(blocks)
        self._skip = skip
        self._data, self._place = b"", 0  # a block, and how much of it became lines
        self._left: list[str] = []  # lines of it, the next one last
        self.number = 0  # of the line that was given last
        self.row: list[str] = []  # lines that were given since `begin_row`

    @property
    def inside(self) -> bool:
        """Whether lines of a block are left."""
        return bool(self._left) or self._place < len(self._data)

    def next_block(self) -> Block | None:
        """The next block, without the lines to skip; None at the end."""
        block = next(self._blocks, None)
        if block is not None and self._skip:
            self.number, self._skip = self._skip, 0
            rest = block.data[block.data.find(b"\n") + 1 :] if b"\n" in block.data else b""
            block = block._replace(data=rest, lines=block.lines - 1)
        return block

    def load(self, block: Block) -> None:
        """Give the lines of a block next."""
        self._data, self._place = block.data, 0

    def begin_row(self) -> None:
        """Forget the row before."""
        self.row = []

    def give_back(self) -> None:
        """Take back all lines of this row but its first: they are rows of their own."""
        later = self.row[1:]
        self._left += reversed(later)
        self.number -= len(later)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while not self._left:
            if self._place < len(self._data):
                self._left = self._piece()
                continue
            block = self.next_block()  # within a field: it goes on there
            if block is None:
                raise StopIteration
            self.load(block)
        self.number += 1
        self.row.append(self._left.pop())
        return self.row[-1]

    def _piece(self) -> list[str]:
        """Some lines, the next one last; bytes that are not UTF-8 stay in them, as surrogates."""
        start, data = self._place, self._data
        self._place = data.find(b"\n", start + PIECE_BYTES) + 1 or len(data)
        text = data[start : self._place].decode("utf-8", "surrogateescape")
        return list(io.StringIO(text, newline=""))[::-1]


class _Careful:
    """Rows of blocks that hold quotes, or lines with too few or too many fields.

    A quote that is not closed would take the lines after it for its own, up to the next quote or
    the end: such a row is broken, and the lines after its first are read again.
    """

    def __init__(
        self, file: str, lines: _Lines, kind: str, names: list[str], chosen: list[int]
    ) -> None:
        self._file, self._lines, self._names, self._chosen = file, lines, names, chosen
        self._separator = SEPARATORS[kind]
        self._reader = csv.reader(lines, delimiter=self._separator)

    def read(self, block: Block, rejects: Rejects) -> Iterator[Table]:
        """The rows that begin in a block, and what else it takes to end the last of them."""
        self._lines.load(block)
        while self._lines.inside:
            part = self._read_some(rejects)
            if len(part.rows):
                yield part

    def _read_some(self, rejects: Rejects) -> Table:
        rows: list[int] = []
        values: list[list[str]] = [[] for _ in self._chosen]
        while self._lines.inside and len(rows) < CAREFUL_ROWS:
            line = self._lines.number + 1
            self._lines.begin_row()
            try:
                fields = next(self._reader, None)
                self._require_closed()
            except csv.Error as error:
                detail = f"{error}; an unclosed quote?"
                rejects.add(self._file, line, "broken row", detail=detail)
                self._lines.give_back()
                continue
            if not fields:
                continue
            if not "".join(fields).isascii() and _is_broken(fields):
                rejects.add(self._file, line, "broken encoding", detail="not UTF-8")
            elif len(fields) != len(self._names):
                detail = f"{len(fields)} fields, the header has {len(self._names)}"
                rejects.add(self._file, line, "broken row", detail=detail)
            else:
                rows.append(line)
                for place, column in zip(self._chosen, values, strict=True):
                    column.append(fields[place])
        names = [self._names[place] for place in self._chosen]
        columns: dict[str, pl.Series | list[Any]] = {
            name: pl.Series(name, column, dtype=pl.String)
            for name, column in zip(names, values, strict=True)
        }
        return Table(np.array(rows, dtype=np.int64), columns, (self._file,))

    def _require_closed(self) -> None:
        """Of rows of several lines, and of the last one, ask for quotes that are right.

        Raises:
            csv.Error: they are not.
        """
        row = self._lines.row
        if len(row) > 1:
            list(csv.reader(row, delimiter=self._separator, strict=True))
        # Another line would belong to the row of an open quote.
        elif (
            not self._lines.inside
            and len([*csv.reader([*row, "x"], delimiter=self._separator)]) < 2
        ):
            raise csv.Error("the file ends within quotes")


def _quick(
    file: str, block: Block, first: int, kind: str, names: list[str], chosen: list[int]
) -> Table | None:
    """The quick way, for blocks without quotes in which every line has all its fields."""
    data, separator = block.data, SEPARATORS[kind]
    whole = data.count(separator.encode()) == block.lines * (len(names) - 1)
    if b'"' in data or not whole or len(names) < 2 or data.count(b"\r") != data.count(b"\r\n"):
        return None
    try:
        frame = pl.read_csv(
            data, separator=separator, has_header=False, infer_schema=False, quote_char=None
        ).fill_null("")
    except pl.exceptions.PolarsError:
        return None  # the slow way finds the line and says what is wrong with it
    if frame.shape != (block.lines, len(names)):
        return None
    columns: dict[str, pl.Series | list[Any]] = {
        names[place]: frame.to_series(place).alias(names[place]) for place in chosen
    }
    return Table(np.arange(first, first + block.lines, dtype=np.int64), columns, (file,))


def _is_broken(fields: list[str]) -> bool:
    return any("\udc80" <= letter <= "\udcff" for field in fields for letter in field)
