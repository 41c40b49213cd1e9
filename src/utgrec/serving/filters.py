"""Filters of a request: conditions on attribute columns, and lists of items, as a set of items.

A condition holds for an item if its value is one of those named, or within the bounds named; for a
column of lists (category), if any entry is. An item without a value meets no condition.

Shapes: N items, live or not.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from utgrec.catalog import CORE_COLUMNS, Catalog
from utgrec.decoding import CodeTrie, ItemSet, ListColumn, ValueColumn
from utgrec.errors import BadConfig, FieldError, InputError
from utgrec.serving.items import shown

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
    field: str = dataclasses.field(default="", compare=False)
    """Where the request has it, such as filters.price; errors name it."""

    def __post_init__(self) -> None:
        for value in (self.at_least, self.at_most, *(self.any_of or ())):
            if not _is_finite(value):
                rule = "a number of a filter is finite, and no larger than a 64-bit float can hold"
                error = BadConfig(f"{rule}; got {shown(value)}")
                raise error.about([FieldError.of(self.field, value, rule)])

    @property
    def shown(self) -> str:
        """As a request writes it, in JSON."""
        said: dict[str, Any] = {"min": self.at_least, "max": self.at_most}
        said = {name: bound for name, bound in said.items() if bound is not None}
        if self.any_of is not None:
            said["any_of"] = self.any_of
        alone = list(said) == ["any_of"]
        return json.dumps(self.any_of if alone else said, ensure_ascii=False)


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
    """One attribute of the items, ready to be compared."""

    kind: str  # words, numbers or flags
    sets: ValueColumn | ListColumn  # of word numbers, numbers or flags
    words: dict[str, int]  # word → its number


class AttributeIndex:
    """The attribute columns of a catalogue, made comparable when they are first asked for."""

    def __init__(self, catalog: Catalog, trie: CodeTrie) -> None:
        """`trie` is that of the catalogue's codes; sets of items are in its order."""
        self._catalog, self._trie = catalog, trie
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

    def matching(self, where: Sequence[tuple[str, Condition]]) -> ItemSet | None:
        """The items that meet all conditions; None if there is no condition.

        Raises:
            InputError: no such column, or a condition that does not fit it.
        """
        whole: ItemSet | None = None
        for name, condition in where:
            met = self._met(name, condition)
            whole = met if whole is None else whole & met
        return whole

    def find(self, item_ids: Sequence[str]) -> Known:
        """The indices of ids, and the ids that the catalogue has never had."""
        known = [item_id for item_id in item_ids if item_id in self._catalog]
        unknown = [item_id for item_id in item_ids if item_id not in self._catalog]
        return Known(np.array(self._catalog.indices_of(known), dtype=np.int64), unknown)

    def _met(self, name: str, condition: Condition) -> ItemSet:
        try:
            return self._compare(name, condition)
        except InputError as error:
            field = condition.field or f"filters.{name}"
            raise error.about([FieldError(field, condition.shown, str(error))]) from None

    def _compare(self, name: str, condition: Condition) -> ItemSet:
        column = self._column(name)
        least, most = condition.at_least, condition.at_most
        bounded = least is not None or most is not None
        if not bounded and condition.any_of is None:
            raise InputError(f"the condition on {name} is empty; name values or a bound")
        if bounded and column.kind != "numbers":
            raise InputError(
                f"{name} is a column of {column.kind}, bounds are for numbers; name the values "
                "that an item may have"
            )
        if condition.any_of is None:
            return column.sets.between(least, most)
        wanted = self._wanted(name, column, condition.any_of)
        # One entry of a list must meet everything, so bounds choose among the values named.
        if least is not None:
            wanted = [value for value in wanted if value >= least]
        if most is not None:
            wanted = [value for value in wanted if value <= most]
        return column.sets.any_of(wanted)

    def _wanted(self, name: str, column: _Column, values: Sequence[Scalar]) -> list[Any]:
        kinds: dict[str, Any] = {"words": str, "flags": bool, "numbers": (int, float)}
        for value in values:
            flag = isinstance(value, bool)
            if not isinstance(value, kinds[column.kind]) or flag != (column.kind == "flags"):
                shown = json.dumps(value, ensure_ascii=False)
                raise InputError(
                    f"{name} is a column of {column.kind}, {shown} is none of them; compare it "
                    "with such values"
                )
        if column.kind == "words":
            # A word that no item has is no error: the catalogue changes while clients do not.
            return [column.words[str(value)] for value in values if value in column.words]
        return list(values)

    def _column(self, name: str) -> _Column:
        if name not in self._columns:
            if name not in self.columns:
                raise InputError(
                    f"the catalogue has no column {name!r} to filter by; it has "
                    f"{', '.join(self.columns) or 'none'}"
                )
            self._columns[name] = _read(self._catalog.table.column(name), name, self._trie)
        return self._columns[name]


def _is_finite(value: Scalar | None) -> bool:
    try:
        return not isinstance(value, (int, float)) or math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False


def _read(column: pa.ChunkedArray, name: str, trie: CodeTrie) -> _Column:
    values, items = column.combine_chunks(), None
    if isinstance(values, pa.ChunkedArray):  # a table without rows has no chunk to combine
        values = pa.array([], column.type)
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        items = pc.list_parent_indices(values).to_numpy().astype(np.int64)
        values = values.flatten()
    of, words = values.type, {}
    missing = values.is_null().to_numpy(zero_copy_only=False)
    plain: npt.NDArray[Any]
    if pa.types.is_boolean(of):
        kind, plain = "flags", values.fill_null(False).to_numpy(zero_copy_only=False)
    elif pa.types.is_integer(of) or pa.types.is_floating(of):
        kind, plain = "numbers", values.cast(pa.float64()).to_numpy(zero_copy_only=False)
        missing = missing | np.isnan(plain)
    elif pa.types.is_string(of) or pa.types.is_large_string(of):
        coded = values.dictionary_encode()
        words = {word: place for place, word in enumerate(coded.dictionary.to_pylist())}
        kind, plain = "words", coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    else:
        raise InputError(f"column {name} of type {of} cannot be filtered by; use another one")
    if items is None:
        return _Column(kind, ValueColumn(trie, plain, missing if missing.any() else None), words)
    return _Column(kind, ListColumn(trie, plain[~missing], items[~missing]), words)
