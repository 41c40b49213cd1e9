"""What items can be filtered by: the attribute columns of a catalogue, with their values.

Shapes: N items, live or not.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from utgrec.catalog import CORE_COLUMNS, Catalog
from utgrec.serving.explorer.search import whole_column

MOST_VALUES = 60  # values of a column that are listed, the commonest ones
BARS = 24  # of the histogram of a column of numbers
MOST_SPREAD = 0.98  # share of the items that the histogram spreads out; the rest is its last bar


class Facet(NamedTuple):
    """One column, over the live items."""

    name: str
    kind: str  # words, numbers or flags
    items: int  # live items that have a value
    distinct: int  # different values
    values: list[tuple[str | bool, int]]  # the commonest values and their items; not of numbers
    least: float | None  # of numbers
    most: float | None  # of numbers
    bars: list[int]  # items between least and most, the last bar with all that is above
    bars_to: float | None  # where the last bar begins


def describe_facets(catalog: Catalog, live: npt.NDArray[np.bool_]) -> list[Facet]:
    """All columns that a filter may name, in their own order; others are left out."""
    rows = catalog.table.filter(pa.array(live))
    names = [name for name in rows.column_names if name not in CORE_COLUMNS]
    found = [_describe(name, whole_column(rows.column(name))) for name in names]
    return [facet for facet in found if facet is not None]


def _describe(name: str, column: Any) -> Facet | None:
    items = len(column) - column.null_count
    values = column
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        items = int(
            pc.sum(pc.greater(pc.fill_null(pc.list_value_length(column), 0), 0)).as_py() or 0
        )
        values = column.flatten()
    values = values.drop_null()
    kind = values.type
    if pa.types.is_boolean(kind):
        yes = int(pc.sum(values).as_py() or 0)
        counts: list[tuple[str | bool, int]] = [(True, yes), (False, len(values) - yes)]
        return Facet(name, "flags", items, 2, counts, None, None, [], None)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _describe_numbers(name, values.cast(pa.float64()).to_numpy(), items)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        counted = pc.value_counts(values)
        words, numbers = counted.field("values"), counted.field("counts").to_numpy()
        order = np.argsort(-numbers, kind="stable")[:MOST_VALUES]
        named = [(words[int(place)].as_py(), int(numbers[place])) for place in order]
        return Facet(name, "words", items, len(words), named, None, None, [], None)
    return None


def _describe_numbers(name: str, values: npt.NDArray[np.float64], items: int) -> Facet:
    values = values[np.isfinite(values)]
    if not len(values):
        return Facet(name, "numbers", items, 0, [], None, None, [], None)
    least, most = float(values.min()), float(values.max())
    last = float(np.quantile(values, MOST_SPREAD))
    distinct = int(pc.count_distinct(pa.array(values)).as_py())
    step = (last - least) / (BARS - 1)
    place = np.zeros(len(values), dtype=np.int64)
    if step > 0:
        place = np.minimum(((values - least) / step).astype(np.int64), BARS - 1)
    bars = np.bincount(place, minlength=BARS).tolist() if step > 0 else [len(values)]
    return Facet(name, "numbers", items, distinct, [], least, most, bars, last)
