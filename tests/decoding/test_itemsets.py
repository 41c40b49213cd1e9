"""Sets of items are sets: every condition equals going through the items one by one."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_shops import make_shop, random_codes

from utgrec.decoding import AllowedItems, CodeTrie, ItemSet, ListColumn, ValueColumn
from utgrec.decoding.itemsets import count_bits
from utgrec.errors import InputError

SIZES = (6, 8, 8)


@st.composite
def shops(draw: st.DrawFn) -> tuple[CodeTrie, np.ndarray]:
    """A catalogue and one small number per item, some of them missing (-1)."""
    codes = random_codes(SIZES, draw(st.integers(1, 70)), draw(st.integers(0, 99)))
    values = draw(st.lists(st.integers(-1, 6), min_size=len(codes), max_size=len(codes)))
    return CodeTrie.build(codes), np.array(values)


def items_of(trie: CodeTrie, found: ItemSet) -> set[int]:
    """The set as indices, through what decoding uses."""
    mask = AllowedItems(trie, found).mask
    assert len(found) == int(mask.sum()) == AllowedItems(trie, found).total
    return set(mask.nonzero().flatten().tolist())


def where(values: np.ndarray, meets) -> set[int]:
    return {item for item, value in enumerate(values.tolist()) if value >= 0 and meets(value)}


@settings(deadline=None)
@given(shop=shops(), wanted=st.lists(st.integers(0, 7), max_size=4), bounds=st.data())
def test_a_column_of_values_equals_brute_force(shop, wanted, bounds):
    trie, values = shop
    column = ValueColumn(trie, values, missing=values < 0)
    for _ in range(2):  # the second time from what was kept
        assert items_of(trie, column.any_of(wanted)) == where(values, lambda v: v in wanted)
    optional = st.one_of(st.none(), st.integers(-2, 8))
    least, most = bounds.draw(optional), bounds.draw(optional)
    assert items_of(trie, column.between(least, most)) == where(
        values, lambda v: (least is None or v >= least) and (most is None or v <= most)
    )


@settings(deadline=None)
@given(shop=shops(), wanted=st.lists(st.integers(0, 7), max_size=4), data=st.data())
def test_a_column_of_lists_equals_brute_force(shop, wanted, data):
    trie, _ = shop
    count = trie.item_count
    pair = st.tuples(st.integers(0, count - 1), st.integers(0, 6))
    pairs = data.draw(st.lists(pair, max_size=100))
    items = np.array([item for item, _ in pairs], dtype=np.int64)
    column = ListColumn(trie, np.array([value for _, value in pairs], dtype=np.int64), items)
    assert items_of(trie, column.any_of(wanted)) == {i for i, v in pairs if v in wanted}
    assert items_of(trie, column.between(2, 4)) == {i for i, v in pairs if 2 <= v <= 4}
    assert items_of(trie, column.between(None, 3)) == {i for i, v in pairs if v <= 3}


@settings(deadline=None)
@given(shop=shops())
def test_operators_are_those_of_sets(shop):
    trie, values = shop
    everything = set(range(trie.item_count))
    one, other = ItemSet.of(trie, values > 2), ItemSet.of(trie, torch.from_numpy(values % 2 == 0))
    ones, others = items_of(trie, one), items_of(trie, other)
    assert ones == set(np.flatnonzero(values > 2).tolist())
    assert items_of(trie, one & other) == ones & others
    assert items_of(trie, one | other) == ones | others
    assert items_of(trie, ~one) == everything - ones
    assert items_of(trie, ItemSet.of_items(trie, sorted(ones))) == ones


@settings(deadline=None)
@given(shop=shops())
def test_counts_of_nodes_are_the_items_below(shop):
    trie, values = shop
    allowed = AllowedItems(trie, ItemSet.of(trie, values > 2))
    in_order = values[trie.order.numpy()] > 2
    for depth, level in enumerate(trie.levels):
        nodes = torch.arange(len(level.codes))
        first, length = level.items(nodes)
        counted = [
            int(in_order[begin : begin + count].sum())
            for begin, count in zip(first.tolist(), length.tolist(), strict=True)
        ]
        assert allowed.below(depth, nodes).tolist() == counted
        assert allowed.none_below(depth, nodes).tolist() == [count == 0 for count in counted]


def test_a_search_takes_sets():
    shop = make_shop()
    price = ValueColumn(shop.trie, np.arange(60.0))
    kind = ListColumn(shop.trie, np.arange(120) % 5, np.arange(120) % 60)
    chosen = price.between(10, 40) & kind.any_of([1, 3]) & ~ItemSet.of_items(shop.trie, [11, 13])
    hits = shop.search().search(
        shop.input_ids, shop.mask, k=60, allowed=AllowedItems(shop.trie, chosen)
    )
    expected = {item for item in range(10, 41) if item % 5 in (1, 3)} - {11, 13}
    for row in hits.items.tolist():
        assert {item for item in row if item >= 0} == expected
    nothing = AllowedItems(shop.trie, ItemSet.of_items(shop.trie, []))
    hits = shop.search().search(shop.input_ids, shop.mask, k=3, allowed=nothing, exclude=[[1]] * 5)
    assert (hits.items == -1).all()


def test_what_is_no_set_of_this_catalogue_is_refused():
    trie = make_shop().trie
    other = CodeTrie.build(random_codes(SIZES, 9, 0))
    some = ItemSet.of_items(other, [0])
    with pytest.raises(InputError, match=r"indices 0 … 59, got 3 … 60"):
        ItemSet.of_items(trie, [60, 3])
    with pytest.raises(InputError, match="of 9 items, this one has 60"):
        AllowedItems(trie, some)
    with pytest.raises(InputError, match="of 60 and 9 items cannot"):
        ItemSet.of_items(trie, [0]) & some
    with pytest.raises(InputError, match="one value for each of the 60 items"):
        ValueColumn(trie, np.arange(59))
    with pytest.raises(InputError, match="of a catalogue of 60"):
        ListColumn(trie, np.arange(2), np.array([0, 60]))


def test_a_million_items_take_little():
    numbers = np.random.default_rng(0).permutation(2**21)[: 10**6]
    codes = np.stack(np.unravel_index(numbers * 32 + numbers % 31, (256, 512, 512)), axis=1)
    trie = CodeTrie.build(codes.astype(np.int16))
    chosen = ItemSet.of(trie, numbers % 2 == 0)
    assert chosen.bits.nbytes == 125_000
    assert len(chosen) == int((numbers % 2 == 0).sum())
    allowed = AllowedItems(trie, chosen)
    nodes = torch.arange(len(trie.levels[1].codes))
    assert int(allowed.below(1, nodes).sum()) == int(allowed.below(0, torch.arange(256)).sum())


@pytest.mark.parametrize("size", [1, 7, 8, 63, 64, 65, 1000])
def test_bits_between_positions_are_counted(size):
    """By compiled functions, where there are some, and by numpy."""
    rng = np.random.default_rng(size)
    mask = rng.random(size) < 0.5
    bits = np.packbits(mask, bitorder="little")
    inner = np.sort(rng.integers(0, size + 1, 9))
    for starts in (np.array([0, *inner, size]), np.array([0, size]), np.arange(size + 1)):
        expected = [mask[a:b].sum() for a, b in itertools.pairwise(starts.tolist())]
        starts = starts.astype(np.int32)
        assert ItemSet(bits, size).counts(starts).tolist() == expected
        assert count_bits(bits, starts).tolist() == expected
