"""A trie is the catalogue's codes in another form: nothing lost, nothing added."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utgrec.decoding import CodeTrie
from utgrec.errors import InputError


@st.composite
def catalogues(draw: st.DrawFn) -> torch.Tensor:
    """Different code tuples of any length, from crowded to sparse, in any order."""
    length = draw(st.integers(1, 5))
    largest = draw(st.sampled_from([0, 1, 3, 300, 2**16, 2**31 - 1]))
    code = st.integers(0, largest)
    rows = draw(st.lists(st.tuples(*[code] * length), min_size=1, max_size=40, unique=True))
    return torch.tensor(rows)


@settings(deadline=None)
@given(codes=catalogues())
def test_the_trie_rebuilds_all_codes(codes):
    trie = CodeTrie.build(codes)
    assert torch.equal(trie.codes, codes)
    assert (trie.item_count, trie.code_length) == tuple(codes.shape)
    assert torch.equal(trie.order[trie.rank.long()], torch.arange(len(codes)).int())


@settings(deadline=None)
@given(codes=catalogues())
def test_nodes_are_the_prefixes_and_their_ranges_the_items_below(codes):
    trie = CodeTrie.build(codes)
    tuples = [tuple(row) for row in codes.tolist()]
    above = [()]
    for depth, level in enumerate(trie.levels):
        prefixes = sorted({row[: depth + 1] for row in tuples})
        assert level.codes.tolist() == [prefix[-1] for prefix in prefixes]
        first, length = level.children(torch.arange(len(above)))
        for parent, begin, count in zip(above, first.tolist(), length.tolist(), strict=True):
            children = [prefix for prefix in prefixes if prefix[:depth] == parent]
            assert prefixes[begin : begin + count] == children
        first, length = level.items(torch.arange(len(prefixes)))
        for node, begin, count in zip(prefixes, first.tolist(), length.tolist(), strict=True):
            below = [tuples[item] for item in trie.order[begin : begin + count].tolist()]
            assert below == sorted(row for row in tuples if row[: depth + 1] == node)
        above = prefixes


@settings(deadline=None)
@given(codes=catalogues())
def test_nodes_of_items_agree_with_the_ranges(codes):
    trie = CodeTrie.build(codes)
    positions = torch.arange(len(codes))
    for level in trie.levels:
        node = level.node_of(positions)
        first, length = level.items(node)
        assert ((first <= positions) & (positions < first + length)).all()
        assert level.node_of(torch.tensor([len(codes)])).tolist() == [len(level.codes)]


def test_the_order_of_items_does_not_change_the_nodes():
    codes = torch.cartesian_prod(torch.arange(3), torch.arange(4), torch.arange(2))
    shuffled = torch.randperm(len(codes), generator=torch.Generator().manual_seed(0))
    trie, other = CodeTrie.build(codes), CodeTrie.build(codes[shuffled].numpy().astype(np.int16))
    for level, same in zip(trie.levels, other.levels, strict=True):
        assert torch.equal(level.codes, same.codes)
    assert torch.equal(shuffled[other.order.long()], trie.order.long())


def test_two_items_with_the_same_codes_are_named():
    codes = torch.tensor([[1, 2, 3], [4, 5, 6], [0, 0, 0], [4, 5, 6]])
    with pytest.raises(InputError, match=r"items \[1, 3\] both have \[4, 5, 6\]"):
        CodeTrie.build(codes)


@pytest.mark.parametrize(
    "codes",
    [
        torch.zeros(0, 3, dtype=torch.int64),
        torch.zeros(3, 0, dtype=torch.int64),
        torch.arange(3),
        torch.rand(3, 3),
        torch.tensor([[0, -1]]),
        torch.tensor([[0, 2**31]]),
    ],
)
def test_codes_that_are_none_are_refused(codes):
    with pytest.raises(InputError, match="codes must"):
        CodeTrie.build(codes)


def test_a_million_items_take_at_most_16_megabytes():
    numbers = np.random.default_rng(0).permutation(2**21)[: 10**6]
    codes = np.stack(np.unravel_index(numbers * 32 + numbers % 31, (256, 512, 512)), axis=1)
    assert CodeTrie.build(codes.astype(np.int16)).nbytes <= 16e6


def test_moving_keeps_codes_and_memory():
    trie = CodeTrie.build(torch.cartesian_prod(torch.arange(3), torch.arange(4)))
    moved = trie.to("cpu")
    assert torch.equal(moved.codes, trie.codes)
    assert moved.nbytes == trie.nbytes
