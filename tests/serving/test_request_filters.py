"""Conditions on every kind of column are brute force over the entries of the items."""

import itertools
import math

import numpy as np
import pyarrow as pa
import pytest
import torch

from utgrec.catalog import Catalog
from utgrec.decoding import CodeTrie
from utgrec.errors import BadConfig, InputError
from utgrec.serving.filters import AttributeIndex, Condition

ITEMS = 90


@pytest.fixture(scope="module")
def catalog():
    rng = np.random.default_rng(0)

    def one(values):
        return [values[place] for place in rng.integers(0, len(values), ITEMS)]

    def several(values):
        return [
            [*one(values)[: rng.integers(0, 4)]] if rng.random() < 0.9 else None
            for _ in range(ITEMS)
        ]

    columns = {
        "number": one([1.0, 2.5, 4.0, math.nan, None]),
        "whole": one([1, 2, 3]),
        "numbers": several([1.0, 2.5, 4.0, math.nan, None]),
        "word": one(["red", "green", "", None]),
        "words": several(["red", "green", "blue", None]),
        "flag": one([True, False, None]),
        "flags": several([True, False]),
    }
    core = {name: [f"{name}{i}" for i in range(ITEMS)] for name in ("item_id", "title", "text")}
    return Catalog(pa.table({**core, "image": pa.nulls(ITEMS, pa.string()), **columns}))


def met(entries, condition):
    """Whether one entry of an item meets everything."""
    for entry in entries if isinstance(entries, list) else [entries]:
        ok = entry is not None and not (isinstance(entry, float) and math.isnan(entry))
        ok = ok and (condition.any_of is None or entry in condition.any_of)
        ok = ok and (condition.at_least is None or entry >= condition.at_least)
        ok = ok and (condition.at_most is None or entry <= condition.at_most)
        if ok:
            return True
    return False


NUMBERS = [
    Condition(any_of=any_of, at_least=least, at_most=most)
    for any_of, least, most in itertools.product(
        [None, (1,), (2.5, 4.0, 7)], [None, 2], [None, 3.5]
    )
    if (any_of, least, most) != (None, None, None)
]
WORDS = [Condition(any_of=some) for some in (("red",), ("green", "blue"), ("",), ("nothing",), ())]
FLAGS = [Condition(any_of=some) for some in ((True,), (False,), (True, False))]


@pytest.mark.parametrize(
    ("names", "conditions"),
    [
        (("number", "whole", "numbers"), NUMBERS),
        (("word", "words"), WORDS),
        (("flag", "flags"), FLAGS),
    ],
    ids=["numbers", "words", "flags"],
)
def test_conditions_are_brute_force(catalog, names, conditions):
    order = torch.randperm(ITEMS, generator=torch.Generator().manual_seed(1))
    codes = torch.stack([order // 10, order % 10], dim=1)  # the trie has an order of its own
    index = AttributeIndex(catalog, CodeTrie.build(codes))
    for name, condition in itertools.product(names, conditions):
        found = index.matching([(name, condition)])
        expected = {
            i
            for i, entries in enumerate(catalog.table.column(name).to_pylist())
            if met(entries, condition)
        }
        assert len(found) == len(expected), (name, condition)
        trie_order = CodeTrie.build(codes).order.numpy()
        assert set(trie_order[found.in_order].tolist()) == expected, (name, condition)


def test_conditions_add_up(catalog):
    index = AttributeIndex(catalog, CodeTrie.build(torch.arange(ITEMS)[:, None]))
    where = [("whole", Condition(at_least=2)), ("words", Condition(any_of=("red",)))]
    both = index.matching(where)
    assert len(both) == len(index.matching(where[:1]) & index.matching(where[1:])) > 0
    assert index.matching([]) is None


@pytest.mark.parametrize(
    ("name", "condition"),
    [
        ("colour", Condition(any_of=("red",))),
        ("word", Condition()),
        ("word", Condition(at_least=1.0)),
        ("word", Condition(any_of=(1,))),
        ("flag", Condition(any_of=("yes",))),
        ("whole", Condition(any_of=(True,))),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(catalog, name, condition):
    index = AttributeIndex(catalog, CodeTrie.build(torch.arange(ITEMS)[:, None]))
    with pytest.raises(InputError) as refused:
        index.matching([(name, condition)])
    assert refused.value.fields[0].field == f"filters.{name}"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
def test_numbers_that_no_item_can_have_are_refused(value):
    for given in ({"any_of": (1, value)}, {"at_least": value}, {"at_most": value}):
        with pytest.raises(BadConfig, match="is finite, and no larger") as caught:
            Condition(**given, field="filters.price")
        assert [one.field for one in caught.value.fields] == ["filters.price"]
