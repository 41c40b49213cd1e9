"""Facets: what is offered as a filter is what items have."""

import numpy as np
import pyarrow as pa

from utgrec.catalog import Catalog
from utgrec.serving.explorer.facets import BARS, MOST_VALUES, describe_facets


def facets(columns, live=None):
    count = len(next(iter(columns.values())))
    names = pa.array([f"I{place}" for place in range(count)], pa.string())
    core = {"item_id": names, "title": names, "text": names, "image": pa.nulls(count, pa.string())}
    shelf = np.ones(count, bool) if live is None else np.array(live)
    found = describe_facets(Catalog(pa.table({**core, **columns})), shelf)
    return {facet.name: facet for facet in found}


def test_kinds_and_counts():
    found = facets(
        {
            "brand": pa.array(["a", "b", "b", None]),
            "category": pa.array([["x", "y"], ["y"], [], None], pa.list_(pa.string())),
            "stock": pa.array([True, False, None, True]),
            "price": pa.array([1.0, 2.5, None, float("nan")]),
            "year": pa.array([1990, 2000, 2000, 2010]),
            "when": pa.array([None] * 4, pa.timestamp("ms")),
        }
    )
    assert "when" not in found  # nothing can be filtered by it
    assert found["brand"].values == [("b", 2), ("a", 1)]
    assert (found["brand"].kind, found["brand"].items, found["brand"].distinct) == ("words", 3, 2)
    assert found["category"].values == [("y", 2), ("x", 1)] and found["category"].items == 2
    assert found["stock"].values == [(True, 2), (False, 1)] and found["stock"].kind == "flags"
    assert (found["price"].least, found["price"].most, found["price"].items) == (1.0, 2.5, 3)
    assert (found["year"].distinct, sum(found["year"].bars)) == (3, 4)


def test_removed_items_do_not_count():
    found = facets({"brand": pa.array(["a", "b"]), "price": pa.array([1.0, 9.0])}, [True, False])
    assert found["brand"].values == [("a", 1)] and found["price"].most == 1.0


def test_histograms_hold_every_item_also_far_ones():
    prices = np.concatenate([np.linspace(1, 50, 990), np.full(10, 1e6)])
    found = facets({"price": pa.array(prices)})["price"]
    assert sum(found.bars) == 1000 and len(found.bars) == BARS
    assert found.bars_to < 51 and found.most == 1e6
    assert min(found.bars) > 0  # one dear item does not press all others into one bar
    same = facets({"price": pa.array([3.0, 3.0])})["price"]
    assert (same.bars, same.bars_to) == ([2], 3.0)


def test_columns_without_any_value_and_with_many():
    found = facets({"brand": pa.nulls(3, pa.string()), "price": pa.nulls(3, pa.float64())})
    assert (found["brand"].items, found["brand"].values) == (0, [])
    assert (found["price"].least, found["price"].bars) == (None, [])
    many = facets({"sku": pa.array([f"s{place}" for place in range(500)])})["sku"]
    assert (many.distinct, len(many.values)) == (500, MOST_VALUES)
