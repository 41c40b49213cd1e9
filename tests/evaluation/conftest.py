"""Small logs for the evaluation tests."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from utgrec.data.split import Split

MakeSplit = Callable[[Sequence[Sequence[int]]], Split]


def split_histories(histories: Sequence[Sequence[int]]) -> Split:
    """Leave-one-out of plain lists, written independently of `leave_one_out`."""
    held = [len(history) >= 3 for history in histories]
    train = [list(h[:-2]) if ok else list(h) for h, ok in zip(histories, held, strict=True)]
    return Split(
        offsets=np.cumsum([0, *map(len, train)]).astype(np.int64),
        train=np.array([item for history in train for item in history], dtype=np.int32),
        valid=np.array(
            [h[-2] if ok else -1 for h, ok in zip(histories, held, strict=True)], dtype=np.int32
        ),
        test=np.array(
            [h[-1] if ok else -1 for h, ok in zip(histories, held, strict=True)], dtype=np.int32
        ),
    )


@pytest.fixture
def make_split() -> MakeSplit:
    """Leave-one-out of plain lists of item indices."""
    return split_histories


@pytest.fixture
def random_histories() -> list[list[int]]:
    """60 users with 1 to 12 of 40 items; popular items are those with a low index."""
    rng = np.random.default_rng(7)
    chances = 1 / np.arange(1, 41)
    chances /= chances.sum()
    return [
        rng.choice(40, size=rng.integers(1, 13), p=chances).tolist()  # with repeats
        for _ in range(60)
    ]
