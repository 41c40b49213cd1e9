"""Filters of a request: conditions on attribute columns, and lists of items, as a mask over items.

A condition holds for an item if its value is one of those named, or within the bounds named; for a
column of lists (category), if any entry is. An item without a value meets no condition.

Shapes: N items, live or not.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from utgrec.catalog import CORE_COLUMNS, Catalog
from utgrec.errors import FieldError, InputError

Mask = npt.NDArray[np.bool_]
Scalar = str | bool | int | float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Condition:
    """What one column must say."""

    any_of: tuple[Scalar, ...] | None = None
    """Values of which the item has one."""
    at_least: float | None = None
    """Lower bound, included; for columns of numbers."""
    at_most: float | None = None
    """Upper bound, included; for columns of numbers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Filters:
    """Which items a request may get."""

    where: tuple[tuple[str, Condition], ...] = ()
    """Column and condition; all of them must hold."""
    allow: tuple[str, ...] | None = None
    """Ids of the only items to choose from; None for all."""
    deny: tuple[str, ...] = ()
    """Ids of items to leave out."""


class Known(NamedTuple):
    """Ids, parted by whether the catalogue has them."""

    places: npt.NDArray[np.int64]
    unknown: list[str]


class _Column(NamedTuple):
    """One attribute of N items, ready to be compared."""

    kind: str  # words, numbers or flags
    items: npt.NDArray[np.int64] | None  # (entries,), the item of each entry of lists
    values: npt.NDArray[Any]  # (N or entries,), word numbers, float64 or bool
    missing: Mask | None  # (N or entries,), where there is no value
    words: dict[str, int]  # word → its number


class AttributeIndex:
    """The attribute columns of a catalogue, made comparable when they are first asked for."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._columns: dict[str, _Column] = {}

    @property
    def columns(self) -> list[str]:
        """Names of the columns that conditions may name."""
        return [name for name in self._catalog.table.column_names if name not in CORE_COLUMNS]

    def kind(self, name: str) -> str:
        """What a column holds: words, numbers or flags.

        Raises:
            InputError: no such column, or one that cannot be filtered by.
        """
        return self._column(name).kind

    def mask(self, where: Sequence[tuple[str, Condition]]) -> Mask | None:
        """The items that meet all conditions, (N,); None if there is no condition.

        Raises:
            InputError: no such column, or a condition that does not fit it.
        """
        whole: Mask | None = None
        for name, condition in where:
            met = self._met(name, condition)
            whole = met if whole is None else whole & met
        return whole

    def find(self, item_ids: Sequence[str]) -> Known:
        """The indices of ids, and the ids that the catalogue has never had."""
        known = [item_id for item_id in item_ids if item_id in self._catalog]
        unknown = [item_id for item_id in item_ids if item_id not in self._catalog]
        return Known(np.array(self._catalog.indices_of(known), dtype=np.int64), unknown)

    def _met(self, name: str, condition: Condition) -> Mask:
        try:
            return self._compare(name, condition)
        except InputError as error:
            shown = {k: v for k, v in dataclasses.asdict(condition).items() if v is not None}
            raise error.about([FieldError(f"filters.{name}", str(shown), str(error))]) from None

    def _compare(self, name: str, condition: Condition) -> Mask:
        column = self._column(name)
        bounded = condition.at_least is not None or condition.at_most is not None
        if not bounded and condition.any_of is None:
            raise InputError(f"the condition on {name} is empty; name values or a bound")
        if bounded and column.kind != "numbers":
            raise InputError(
                f"{name} is a column of {column.kind}, bounds are for numbers; name the values "
                "that an item may have"
            )
        met = np.ones(len(column.values), dtype=np.bool_)
        if condition.any_of is not None:
            met &= np.isin(column.values, self._wanted(name, column, condition.any_of))
        if condition.at_least is not None:
            met &= column.values >= condition.at_least
        if condition.at_most is not None:
            met &= column.values <= condition.at_most
        if column.missing is not None:
            met &= ~column.missing
        if column.items is None:
            return met
        mask = np.zeros(len(self._catalog), dtype=np.bool_)
        mask[column.items[met]] = True
        return mask

    def _wanted(self, name: str, column: _Column, values: Sequence[Scalar]) -> npt.NDArray[Any]:
        kinds: Mapping[str, Any] = {"words": str, "flags": bool, "numbers": (int, float)}
        for value in values:
            flag = isinstance(value, bool)
            if not isinstance(value, kinds[column.kind]) or flag != (column.kind == "flags"):
                raise InputError(
                    f"{name} is a column of {column.kind}, {value!r} is none of them; "
                    "compare it with such values"
                )
        if column.kind == "words":
            # A word that no item has is no error: the catalogue changes while clients do not.
            return np.array([column.words.get(str(value), -1) for value in values], dtype=np.int64)
        return np.array(values, dtype=np.bool_ if column.kind == "flags" else np.float64)

    def _column(self, name: str) -> _Column:
        if name not in self._columns:
            if name not in self.columns:
                raise InputError(
                    f"the catalogue has no column {name!r} to filter by; it has "
                    f"{', '.join(self.columns) or 'none'}"
                )
            self._columns[name] = _read(self._catalog.table.column(name), name)
        return self._columns[name]


def _read(column: pa.ChunkedArray, name: str) -> _Column:
    values, items = column.combine_chunks(), None
    if isinstance(values, pa.ChunkedArray):  # a table without rows has no chunk to combine
        values = pa.array([], column.type)
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        items = pc.list_parent_indices(values).to_numpy().astype(np.int64)
        values = values.flatten()
    kind = values.type
    missing = values.is_null().to_numpy(zero_copy_only=False) if values.null_count else None
    if pa.types.is_boolean(kind):
        flags = values.fill_null(False).to_numpy(zero_copy_only=False)
        return _Column("flags", items, flags, missing, {})
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
        return _Column("numbers", items, numbers, missing, {})
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        coded = values.dictionary_encode()
        words = {word: place for place, word in enumerate(coded.dictionary.to_pylist())}
        numbered = coded.indices.fill_null(-2).to_numpy(zero_copy_only=False).astype(np.int64)
        return _Column("words", items, numbered, missing, words)
    raise InputError(f"column {name} of type {kind} cannot be filtered by; use another one")
