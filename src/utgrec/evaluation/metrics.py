"""Ranking metrics with one relevant item per user, computed from the rank of that item.

A rank is 0-based; MISS (-1) means that the item is not among the recommendations. Every metric is
an array with one value per user; the figure that people quote is its mean.

Shapes: U users · k recommendations per user · M metrics.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from utgrec.catalog import Ints
from utgrec.errors import InputError

MISS = -1

Floats = npt.NDArray[np.float64]


class MetricTable(NamedTuple):
    """Several metrics of the same users."""

    names: tuple[str, ...]  # (M,), such as "recall@10"
    values: Floats  # (U, M)

    def column(self, name: str) -> Floats:
        """One metric, (U,).

        Raises:
            InputError: no metric of this name.
        """
        if name not in self.names:
            raise InputError(f"there is no metric {name!r}; there are {', '.join(self.names)}")
        return self.values[:, self.names.index(name)]


def find_ranks(items: Ints, targets: Ints) -> npt.NDArray[np.int32]:
    """The place of each user's target among the items recommended to them, or MISS.

    Shapes: items (U, k), targets (U,) → (U,).
    """
    hits = items == targets[:, None]  # (U, k)
    return np.where(hits.any(axis=1), hits.argmax(axis=1), MISS).astype(np.int32)


def recall_at(ranks: Ints, k: int) -> Floats:
    """1 where the target is among the first k, else 0. Shapes: (U,) → (U,).

    With one relevant item this is also the hit rate.
    """
    return _found(ranks, k).astype(np.float64)


def ndcg_at(ranks: Ints, k: int) -> Floats:
    """1 / log2(rank + 2) where the target is among the first k, else 0. Shapes: (U,) → (U,).

    With one relevant item the ideal gain is 1, so that gain and normalised gain are the same.
    """
    return np.where(_found(ranks, k), 1 / np.log2(np.maximum(ranks, 0) + 2.0), 0.0)


def reciprocal_rank_at(ranks: Ints, k: int) -> Floats:
    """1 / (rank + 1) where the target is among the first k, else 0. Shapes: (U,) → (U,)."""
    return np.where(_found(ranks, k), 1 / (np.maximum(ranks, 0) + 1.0), 0.0)


def metric_table(ranks: Ints, ks: Sequence[int]) -> MetricTable:
    """Recall and NDCG at every k, and the reciprocal rank at the largest. Shapes: (U,) → (U, M)."""
    depth = max(ks)
    columns = {f"recall@{k}": recall_at(ranks, k) for k in ks}
    columns |= {f"ndcg@{k}": ndcg_at(ranks, k) for k in ks}
    columns[f"mrr@{depth}"] = reciprocal_rank_at(ranks, depth)
    return MetricTable(tuple(columns), np.stack(list(columns.values()), axis=1))


def coverage(items: Ints, item_count: int) -> float:
    """Share of the catalogue that was recommended to at least one user; -1 is no item.

    Shapes: items (U, k).
    """
    return len(np.unique(items[items >= 0])) / item_count


def _found(ranks: Ints, k: int) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = np.asarray((ranks > MISS) & (ranks < k))
    return found


def to_json_float(value: float) -> float:
    """A Python float with 6 digits after the point, so that reports stay short."""
    return round(float(value), 6)
