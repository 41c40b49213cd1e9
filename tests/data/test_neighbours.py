"""Neighbours by hand; drawing gives neighbours only, by how often the pair occurs."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from utgrec.data.neighbours import Neighbours, find_neighbours, join
from utgrec.data.split import Split


def split_of(histories: list[list[int]]) -> Split:
    """Training histories only."""
    lengths = [len(history) for history in histories]
    nobody = np.full(len(histories), -1, dtype=np.int32)
    return Split(
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        train=np.array([item for history in histories for item in history], dtype=np.int32),
        valid=nobody,
        test=nobody,
    )


def counted(graph: Neighbours, item: int) -> dict[int, int]:
    places = slice(graph.offsets[item], graph.offsets[item + 1])
    return dict(zip(graph.items[places].tolist(), graph.counts[places].tolist(), strict=True))


def test_by_hand() -> None:
    # 0-1 twice (once each way), 1-2 once, 3-3 is no pair, nothing crosses from user to user.
    graph = find_neighbours(split_of([[0, 1, 2], [1, 0], [3, 3], [], [4]]), 6)
    assert [counted(graph, item) for item in range(6)] == [{1: 2}, {0: 2, 2: 1}, {1: 1}, {}, {}, {}]
    assert graph.of(1).tolist() == [0, 2]


def test_joined_graphs_are_the_graph_of_the_joined_domains() -> None:
    first, second = [[0, 1, 2], [2, 1]], [[0, 2], [1], [2, 0]]
    joined = join([find_neighbours(split_of(first), 4), find_neighbours(split_of(second), 3)])
    whole = find_neighbours(split_of(first + [[4 + i for i in row] for row in second]), 7)
    for one, other in zip(joined, whole, strict=True):
        assert one.tolist() == other.tolist()
        assert one.dtype == other.dtype


HISTORIES = st.lists(st.lists(st.integers(0, 5), max_size=6), max_size=6)


@given(HISTORIES)
def test_same_as_a_loop(histories: list[list[int]]) -> None:
    graph = find_neighbours(split_of(histories), 6)
    slow = np.zeros((6, 6), dtype=int)
    for history in histories:
        for first, second in pairwise(history):
            if first != second:
                slow[first, second] += 1
                slow[second, first] += 1
    for item in range(6):
        assert counted(graph, item) == {j: n for j, n in enumerate(slow[item].tolist()) if n}


@given(HISTORIES, st.integers(0, 2**31))
def test_draw_gives_neighbours_or_the_item_itself(histories: list[list[int]], seed: int) -> None:
    graph = find_neighbours(split_of(histories), 6)
    items = np.arange(6).repeat(5)
    for item, drawn in zip(items, graph.draw(items, np.random.default_rng(seed)), strict=True):
        allowed = graph.of(item).tolist() or [item]
        assert drawn in allowed


def test_draw_is_proportional_to_the_counts() -> None:
    graph = find_neighbours(split_of([[0, 1], [0, 1], [0, 1], [0, 2]]), 3)
    drawn = graph.draw(np.zeros(20_000, dtype=np.int64), np.random.default_rng(0))
    # 0.75 with a standard deviation of 0.003.
    assert abs((drawn == 1).mean() - 0.75) < 0.015
    assert set(drawn.tolist()) == {1, 2}


def test_held_out_items_never_become_neighbours() -> None:
    from test_split import domain_of

    from utgrec.data.split import leave_one_out

    rng = np.random.default_rng(0)
    # Validation items 6, 7 and test items 8, 9 occur nowhere else.
    histories = [
        [*rng.integers(0, 6, 5).tolist(), 6 + user % 2, 8 + user % 2] for user in range(20)
    ]
    graph = find_neighbours(leave_one_out(domain_of(histories)), 10)
    assert len(graph.items) > 0
    assert graph.items.max() < 6
    assert all(len(graph.of(item)) == 0 for item in (6, 7, 8, 9))
