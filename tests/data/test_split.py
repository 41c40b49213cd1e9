"""Leave-one-out loses nothing and uses nothing twice."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from utgrec.catalog import Catalog, Domain
from utgrec.data.split import NOBODY, leave_one_out


def domain_of(histories: list[list[int]], item_count: int = 10) -> Domain:
    ids = [str(index) for index in range(item_count)]
    none = pa.nulls(item_count, pa.string())
    table = pa.table({"item_id": ids, "title": none, "text": none, "image": none})
    lengths = [len(history) for history in histories]
    return Domain(
        name="toy",
        catalog=Catalog(table),
        user_ids=[f"u{index}" for index in range(len(histories))],
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        items=np.array([item for history in histories for item in history], dtype=np.int32),
        timestamps=np.zeros(sum(lengths), dtype=np.int64),
    )


HISTORIES = st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=6)


@given(HISTORIES)
def test_train_valid_and_test_are_the_history(histories: list[list[int]]) -> None:
    split = leave_one_out(domain_of(histories))
    for user, history in enumerate(histories):
        held = [int(part[user]) for part in (split.valid, split.test) if part[user] != NOBODY]
        assert [*split.train_history(user).tolist(), *held] == history
    assert len(split.train) == split.offsets[-1]


def test_users_with_1_2_and_3_interactions() -> None:
    split = leave_one_out(domain_of([[1], [2, 3], [4, 5, 6], []]))
    assert [split.train_history(user).tolist() for user in range(4)] == [[1], [2, 3], [4], []]
    assert split.valid.tolist() == [NOBODY, NOBODY, 5, NOBODY]
    assert split.test.tolist() == [NOBODY, NOBODY, 6, NOBODY]
    assert split.evaluated.tolist() == [2]
    assert split.test_history(2).tolist() == [4, 5]
    assert split.test_history(1).tolist() == [2, 3]


def test_training_pairs_of_a_domain_in_which_all_are_evaluated() -> None:
    histories = [[1, 2, 3], [3, 4, 5, 6, 7], [1, 1, 1, 1]]
    split = leave_one_out(domain_of(histories))
    pairs = int((np.diff(split.offsets) - 1).sum())
    assert pairs == sum(map(len, histories)) - 3 * len(histories)
