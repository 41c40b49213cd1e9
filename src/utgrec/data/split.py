"""Leave-one-out: a user's last item is test, the one before is validation, the rest is training.

A user with fewer than 3 interactions is training only. Everything that learns (neighbours,
popularity, baselines, tokenizer, recommender) sees `train` and nothing else.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from utgrec.catalog import Domain

NOBODY = -1


class Split(NamedTuple):
    """Leave-one-out over U users; users are those of the domain, in its order."""

    offsets: npt.NDArray[np.int64]  # (U + 1,), into train
    train: npt.NDArray[np.int32]  # training items of all users, one user after the other
    valid: npt.NDArray[np.int32]  # (U,), the validation item, or -1
    test: npt.NDArray[np.int32]  # (U,), the test item, or -1

    def train_history(self, user: int) -> npt.NDArray[np.int32]:
        """What the models may learn from."""
        return self.train[self.offsets[user] : self.offsets[user + 1]]

    def test_history(self, user: int) -> npt.NDArray[np.int32]:
        """What is known when the test item is to be guessed: training and validation items."""
        history = self.train_history(user)
        return history if self.valid[user] < 0 else np.append(history, self.valid[user])

    @property
    def evaluated(self) -> npt.NDArray[np.int64]:
        """The users that have a validation and a test item."""
        return np.flatnonzero(self.test >= 0)


def leave_one_out(domain: Domain) -> Split:
    """Split every user of a domain; nothing is lost and nothing is used twice."""
    lengths = np.diff(domain.offsets)
    held = lengths >= 3
    valid = np.full(len(lengths), NOBODY, dtype=np.int32)
    test = np.full(len(lengths), NOBODY, dtype=np.int32)
    ends = domain.offsets[1:]
    valid[held] = domain.items[ends[held] - 2]
    test[held] = domain.items[ends[held] - 1]
    keep = np.ones(len(domain.items), dtype=bool)
    keep[ends[held] - 1] = False
    keep[ends[held] - 2] = False
    train_lengths = np.where(held, lengths - 2, lengths)
    offsets = np.concatenate([[0], np.cumsum(train_lengths)]).astype(np.int64)
    return Split(offsets=offsets, train=domain.items[keep], valid=valid, test=test)
