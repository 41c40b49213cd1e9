"""Turn a block of lines (JSON objects or CSV) into columns: quickly, and right for every line.

The quick way is polars on the whole block. A block that polars refuses is halved until the bad
line is alone with a few others; those, and single values that polars reads in its own way, are
read one by one in Python. What comes out for a line does not depend on the lines around it.
"""

import csv
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import polars as pl

from utgrec.data.blocks import Block
from utgrec.data.values import id_text
from utgrec.errors import BadTable

FEW_LINES = 32  # read one by one rather than halved again

# Text that polars makes of JSON values that are no text: they are read again, in Python.
NOT_TEXT = r"^(?:true|false|\[.*|\{.*|-[0-9.eE+-]+|[0-9]+[.eE][0-9.eE+-]*)$"
MAYBE_NOT_TEXT = r"^[tf\[{0-9-]"
LINE = "line"


class BadLine(NamedTuple):
    """A line that cannot be used at all."""

    line: int
    reason: str
    detail: str


class LineFormat(Protocol):
    """How one line becomes the values of some columns."""

    @property
    def schema(self) -> pl.Schema:
        """The columns that are read."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Those of them that hold ids, which are taken exactly as written."""

    def quick(self, data: bytes) -> pl.DataFrame | None:
        """All lines at once, one row each; None if polars refuses."""

    def slow(self, raw: bytes) -> dict[str, Any]:
        """The raw values of one line.

        Raises:
            UnicodeDecodeError, ValueError, RecursionError: it cannot be read.
        """

    def all_texts(self, data: bytes, column: str, count: int) -> bool:
        """Whether the `count` values of a text column surely were written as text."""


class JsonLines(NamedTuple):
    """One JSON object a line. Of equal keys the first counts."""

    schema: pl.Schema
    ids: tuple[str, ...]

    def quick(self, data: bytes) -> pl.DataFrame | None:
        try:
            return pl.read_ndjson(data, schema=self.schema, ignore_errors=True)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            return None

    def slow(self, raw: bytes) -> dict[str, Any]:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_first_of_equal)
        if not isinstance(value, dict):
            raise ValueError(f"a JSON {type(value).__name__}, not an object")
        return value

    def all_texts(self, data: bytes, column: str, count: int) -> bool:
        # A quote inside a JSON text is written \", so these bytes cannot be part of one.
        name = column.encode()
        found = data.count(b'"%s": "' % name)
        return found == count or found + data.count(b'"%s":"' % name) == count


class CsvLines(NamedTuple):
    """Fields between commas; a field in quotes must not hold a line break."""

    names: tuple[str, ...]  # all columns of the file, in its order
    schema: pl.Schema
    ids: tuple[str, ...]

    def quick(self, data: bytes) -> pl.DataFrame | None:
        lines = data.count(b"\n") + (not data.endswith(b"\n"))
        if b'"' in data or data.count(b",") != lines * (len(self.names) - 1):
            return None
        try:
            frame = pl.read_csv(
                data,
                has_header=False,
                new_columns=list(self.names),
                infer_schema=False,
                quote_char=None,
            )
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            return None
        return frame.select(
            pl.col(name).str.strip_chars().cast(kind, strict=False) if kind.is_numeric() else name
            for name, kind in self.schema.items()
        )

    def slow(self, raw: bytes) -> dict[str, Any]:
        try:
            (fields,) = csv.reader([raw.decode("utf-8").rstrip("\r\n")], strict=True)
        except csv.Error as error:
            raise ValueError(str(error)) from error
        if len(fields) != len(self.names):
            raise ValueError(f"{len(fields)} fields, the header has {len(self.names)}")
        return {name: field or None for name, field in zip(self.names, fields, strict=True)}

    def all_texts(self, data: bytes, column: str, count: int) -> bool:
        return True


class Rows:
    """The lines of one block as columns, with the number of the line in the column "line".

    `frame` is as polars read it; `mend` makes some of its columns right. Lines that cannot be
    used are in `bad`, single values that cannot be used in `unusable`: (line, column) → what
    stands there.
    """

    def __init__(self, block: Block, layout: LineFormat, file: str) -> None:
        """Read a block of `file`, whose name is for messages.

        Raises:
            BadTable: the file ends in the middle of a line.
        """
        self.bad: list[BadLine] = []
        self.unusable: dict[tuple[int, str], str] = {}
        self._block, self._layout = block, layout
        frames = self._read(block.data, block.first_line, block.lines)
        empty = pl.DataFrame(schema={**layout.schema, LINE: pl.Int64})
        self.frame = pl.concat(frames) if frames else empty
        if block.ends_open and self.bad and self.bad[-1].line == self._last_line:
            raise BadTable(
                f"{file}: the last line is only half there "
                f"({self.bad[-1].detail}): the file is not whole; copy or download it again"
            )

    def mend(self, frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
        """Read those rows of `frame` again in which polars may have read a column in its way."""
        return self.read_again(frame, pl.any_horizontal([self._odd(name) for name in columns]))

    def read_again(self, frame: pl.DataFrame, which: pl.Expr) -> pl.DataFrame:
        """Read some rows of `frame` one by one; a row may turn out to be of no use."""
        suspects = frame.select(which.fill_null(False).alias("again"))["again"]
        if not suspects.any():
            return frame
        numbers = frame[LINE].filter(suspects).to_list()
        again = self._one_by_one(numbers, [self._raw[n - self._block.first_line] for n in numbers])
        return pl.concat([frame.filter(~suspects), again.select(frame.columns)]).sort(LINE)

    def reread(self, numbers: pl.Series, layout: LineFormat) -> "Rows":
        """Some of the lines, read in another way; they are numbered 1, 2 … anew."""
        lines = [self._raw[number - self._block.first_line] for number in numbers]
        data = b"".join(line + b"\n" for line in lines)
        return Rows(Block(1, data, len(lines), False, False), layout, "")

    def _odd(self, name: str) -> pl.Expr:
        value, kind = pl.col(name), self._layout.schema[name]
        if kind == pl.List(pl.String):
            entry = pl.element().str
            strange = value.list.eval(
                entry.starts_with("[") | entry.starts_with("{") | entry.contains("\x00")
            )
            return value.is_null() | strange.list.any().fill_null(False)
        if kind != pl.String:
            return value.is_null()
        odd = value.str.contains("\x00", literal=True)  # what polars makes of half a surrogate pair
        # Most ids begin with a letter that no other value begins with; only else all are counted.
        if not self.frame[name].str.contains(MAYBE_NOT_TEXT).any():
            return odd.fill_null(name in self._layout.ids)
        texts = self.frame.height - self.frame[name].null_count()
        if not self._layout.all_texts(self._block.data, name, texts):
            odd |= value.str.contains(NOT_TEXT)
        return odd.fill_null(name in self._layout.ids)

    @property
    def _last_line(self) -> int:
        return self._block.first_line + self._block.lines - 1

    @cached_property
    def _raw(self) -> list[bytes]:
        return self._block.data.split(b"\n")

    def _read(self, data: bytes, first_line: int, lines: int) -> list[pl.DataFrame]:
        frame = self._layout.quick(data) if data else None
        if frame is not None and frame.height == lines:
            numbers = np.arange(first_line, first_line + lines, dtype=np.int64)
            return [frame.with_columns(pl.Series(LINE, numbers))]
        if lines <= FEW_LINES:
            raw = data.split(b"\n")[:lines]
            return [self._one_by_one(range(first_line, first_line + lines), raw)]
        middle = data.find(b"\n", len(data) // 2) + 1
        if not 0 < middle < len(data):
            middle = data.rfind(b"\n", 0, len(data) // 2) + 1
        if not 0 < middle < len(data):  # one giant line among small ones
            raw = data.split(b"\n")[:lines]
            return [self._one_by_one(range(first_line, first_line + lines), raw)]
        before = data.count(b"\n", 0, middle)
        return [
            *self._read(data[:middle], first_line, before),
            *self._read(data[middle:], first_line + before, lines - before),
        ]

    def _one_by_one(self, numbers: Sequence[int], raw: Sequence[bytes]) -> pl.DataFrame:
        columns: dict[str, list[Any]] = {name: [] for name in (*self._layout.schema, LINE)}
        for number, line in zip(numbers, raw, strict=True):
            if not line.strip():
                continue
            try:
                values = self._layout.slow(line)
            except UnicodeDecodeError as error:
                self.bad.append(BadLine(number, "broken encoding", f"not UTF-8 ({error.reason})"))
                continue
            except (ValueError, RecursionError) as error:
                self.bad.append(BadLine(number, "broken row", f"cannot be read ({error})"))
                continue
            columns[LINE].append(number)
            for name, kind in self._layout.schema.items():
                value = values.get(name)
                read = id_text(value) if name in self._layout.ids else _converter(kind)(value)
                if read is None and value is not None:
                    self.unusable[number, name] = repr(value)[:100]
                columns[name].append(read)
        return pl.DataFrame(columns, schema={**self._layout.schema, LINE: pl.Int64})


def _first_of_equal(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs)) if len({key for key, _ in pairs}) < len(pairs) else dict(pairs)


def _converter(kind: pl.DataType) -> Callable[[Any], Any]:
    if kind == pl.String:
        return text_of
    if kind == pl.List(pl.String):
        return texts_of
    if kind.is_integer():
        return whole_number_of
    return objects_of


def text_of(value: Any) -> str | None:
    """A text, or a number as text (whole ones without ".0"); None for all else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    # Half of a surrogate pair cannot be stored, and stands for nothing that anybody could read.
    return str(value).encode("utf-8", "ignore").decode()


def texts_of(value: Any) -> list[str] | None:
    """A list of texts, lists in it laid flat; one text is a list of one."""
    if isinstance(value, (list, tuple)):
        return [text for entry in value for text in texts_of(entry) or []]
    if isinstance(value, dict):
        return [json.dumps(value, ensure_ascii=False)] if value else None
    text = text_of(value)
    return None if text is None else [text]


def whole_number_of(value: Any) -> int | None:
    """A number, or a text that spells one, rounded; None if it is no time that anybody has."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        if not re.fullmatch(r"\s*[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?\s*", value):
            return None
        value = float(value) if re.search(r"[.eE]", value) else int(value)
    if isinstance(value, float):
        value = round(value) if math.isfinite(value) else None
    return value if isinstance(value, int) and abs(value) < 2**63 else None


def objects_of(value: Any) -> list[dict[str, str | None]] | None:
    """A list of objects; also an object of lists, as column formats write it."""
    if isinstance(value, Mapping):
        lists = {key: entries for key, entries in value.items() if isinstance(entries, list)}
        longest = max(map(len, lists.values()), default=0)
        value = [
            {key: entries[n] if n < len(entries) else None for key, entries in lists.items()}
            for n in range(longest)
        ] or [value]
    if isinstance(value, str):
        value = [{"large": value}]
    if not isinstance(value, list):
        return None
    return [
        {name: text_of(entry.get(name)) for name in ("thumb", "large", "hi_res", "variant")}
        if isinstance(entry, Mapping)
        else {"thumb": None, "large": text_of(entry), "hi_res": None, "variant": None}
        for entry in value
    ]
