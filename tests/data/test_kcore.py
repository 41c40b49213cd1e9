"""The k-core against a slow reference, and by hand."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from utgrec.data.kcore import k_core

LOGS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=60)


def slow_core(log: list[tuple[int, int]], k: int) -> list[bool]:
    """Take out one offending user or item at a time until none is left."""
    left = set(range(len(log)))
    while True:
        users = Counter(log[row][0] for row in left)
        items = Counter(log[row][1] for row in left)
        few_users = [user for user, count in users.items() if count < k]
        few_items = [item for item, count in items.items() if count < k]
        if few_users:
            left = {row for row in left if log[row][0] != few_users[0]}
        elif few_items:
            left = {row for row in left if log[row][1] != few_items[0]}
        else:
            return [row in left for row in range(len(log))]


def arrays(log: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(log, dtype=np.int32).reshape(-1, 2)
    return table[:, 0], table[:, 1]


@given(LOGS, st.integers(1, 5))
def test_same_as_the_slow_reference(log: list[tuple[int, int]], k: int) -> None:
    assert k_core(*arrays(log), k).keep.tolist() == slow_core(log, k)


def test_removal_goes_on_until_nothing_changes() -> None:
    # User 2 has one interaction; without it item 2 has one; without that user 1 has one …
    log = [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2)]
    core = k_core(*arrays(log), 2)
    assert not core.keep.any()
    assert core.rounds == 3


def test_one_keeps_everything() -> None:
    core = k_core(*arrays([(0, 5), (3, 0)]), 1)
    assert core.keep.all()
    assert core.rounds == 0
