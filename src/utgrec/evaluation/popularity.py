"""The baseline that everybody must beat: the items most often taken, the same for all users."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from utgrec.data.similarities import Ranked
from utgrec.data.split import Split
from utgrec.evaluation.protocol import Query, Recommendations
from utgrec.evaluation.topk import pack


class Interactions(NamedTuple):
    """Who took what, in no particular order."""

    users: npt.NDArray[np.int64]  # (interactions,)
    items: npt.NDArray[np.int64]  # (interactions,)


def user_counts(
    split: Split, item_count: int, *, with_validation: bool = False
) -> npt.NDArray[np.int64]:
    """How many different users took each item. Shapes: (N,).

    Users, not interactions: one person who buys paper every week does not make it popular. On a
    shop with repeat purchases this is also the stronger baseline (office: Recall@10 .0235, not
    .0204).
    """
    known = known_interactions(split, with_validation=with_validation)
    pairs = np.unique(known.users * item_count + known.items)
    return np.bincount(pairs % item_count, minlength=item_count)


def known_interactions(split: Split, *, with_validation: bool) -> Interactions:
    """Every training interaction; what is known before the test items too if asked."""
    users = np.repeat(np.arange(len(split.valid)), np.diff(split.offsets))
    items = split.train.astype(np.int64)
    if with_validation and split.between is not None and split.between_offsets is not None:
        later = np.repeat(np.arange(len(split.valid)), np.diff(split.between_offsets))
        users, items = np.append(users, later), np.append(items, split.between)
    elif with_validation:
        held = np.flatnonzero(split.valid >= 0)
        users, items = np.append(users, held), np.append(items, split.valid[held])
    return Interactions(users, items)


class Popularity:
    """Recommends by number of users; equal numbers by the lower item index."""

    def __init__(self, counts: npt.NDArray[np.int64], *, knows_validation: bool = False) -> None:
        """`counts` (N,): how many users took each item."""
        self.counts = counts
        self.knows_validation = knows_validation
        self.name = "Popularity, validation items known" if knows_validation else "Popularity"
        self._order = np.argsort(-counts, kind="stable")  # (N,), best first

    @classmethod
    def fit(cls, split: Split, item_count: int, *, with_validation: bool = False) -> "Popularity":
        """Count the training part; the validation items too if asked (for the test part only)."""
        counts = user_counts(split, item_count, with_validation=with_validation)
        return cls(counts, knows_validation=with_validation)

    def recommend(self, query: Query, k: int, *, exclude_seen: bool) -> Recommendations:
        """The k most popular items, without those of the history if `exclude_seen`."""
        rows = []
        for history in query.histories:
            # At most len(history) of the first items can be seen ones.
            items = self._order[: k + len(history)] if exclude_seen else self._order[:k]
            if exclude_seen:
                items = items[~np.isin(items, history)][:k]
            rows.append(Ranked(items, self.counts[items].astype(np.float64)))
        return Recommendations(*pack(rows, k))
