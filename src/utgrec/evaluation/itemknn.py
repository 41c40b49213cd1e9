"""ItemKNN: items taken by the same users are similar; recommend what is similar to the history.

Each item is a vector over users. A user who took n of N items counts log(N / (1 + n)): who takes
everything says little. Similarity is the cosine of these tf-idf vectors, kept for the K most
similar items; a score is the sum of similarities to the items of the history. One sparse product,
no training, and a strong baseline.

Shapes: B users of a batch · U users · N items · K neighbours per item.
"""

import dataclasses
from typing import Any

import numpy as np
from scipy import sparse

from utgrec.catalog import Ints
from utgrec.config import require
from utgrec.data.similarities import Similarities, best, most_similar
from utgrec.data.split import Split
from utgrec.evaluation.metrics import Floats
from utgrec.evaluation.popularity import known_interactions
from utgrec.evaluation.protocol import Query, Recommendations
from utgrec.evaluation.topk import pack


@dataclasses.dataclass(frozen=True, kw_only=True)
class ItemKNNConfig:
    """Settings of ItemKNN; the defaults are those of the measured yardsticks."""

    neighbours: int = 100
    """Most similar items kept per item, K; the item itself is one of them."""
    shrink: float = 0.0
    """A similarity that rests on n common users is multiplied by n / (n + shrink) (users)."""
    last: int | None = None
    """Only this many of the latest items of a history count; None means all."""
    decay: float = 1.0
    """Weight of an item relative to the one taken after it: 1 forgets nothing."""
    self_similar: bool = True
    """Whether an item is its own neighbour; matters only where seen items can be recommended."""

    def __post_init__(self) -> None:
        require(self.neighbours >= 1, f"neighbours must be at least 1, got {self.neighbours}")
        require(self.shrink >= 0, f"shrink must be at least 0, got {self.shrink}")
        require(self.last is None or self.last >= 1, f"last must be ≥ 1 or None, got {self.last}")
        require(0 < self.decay <= 1, f"decay must be in (0, 1], got {self.decay}")


def find_similarities(
    split: Split,
    item_count: int,
    *,
    neighbours: int,
    shrink: float = 0.0,
    self_similar: bool = True,
    with_validation: bool = False,
) -> Similarities:
    """Compare every item with every other over the training part."""
    counts = _count_matrix(split, item_count, with_validation=with_validation)  # (U, N)
    return most_similar(counts, neighbours=neighbours, shrink=shrink, self_similar=self_similar)


class ItemKNN:
    """Sums the similarities to the items of the history; with decay < 1 the latest count most."""

    def __init__(
        self, similarities: Similarities, config: ItemKNNConfig, *, knows_validation: bool = False
    ) -> None:
        self.config = config
        self.knows_validation = knows_validation
        self.name = "ItemKNN, validation items known" if knows_validation else "ItemKNN"
        items, values = similarities.cut(config.neighbours)
        kept = items >= 0  # (N, K)
        count = len(items)
        self.item_count = count
        rows = np.repeat(np.arange(count), kept.sum(axis=1))
        self._matrix = sparse.csr_matrix(  # (N, N): row i holds the neighbours of item i
            (values[kept].astype(np.float64), (rows, items[kept])), shape=(count, count)
        )

    @classmethod
    def fit(
        cls,
        split: Split,
        item_count: int,
        config: ItemKNNConfig | None = None,
        *,
        with_validation: bool = False,
    ) -> "ItemKNN":
        """Compare the items over the training part; the validation items too if asked.

        Nothing is trained by gradient here, so a shop would count its whole log: for the test part
        `with_validation=True` is the stronger baseline (beauty: Recall@10 .0658, not .0592).
        """
        config = config or ItemKNNConfig()
        similarities = find_similarities(
            split,
            item_count,
            neighbours=config.neighbours,
            shrink=config.shrink,
            self_similar=config.self_similar,
            with_validation=with_validation,
        )
        return cls(similarities, config, knows_validation=with_validation)

    def recommend(self, query: Query, k: int, *, exclude_seen: bool) -> Recommendations:
        """The k best-scored items; fewer where the history has fewer similar items."""
        return best_of_rows(self.scores(query.histories), query.histories, k, exclude_seen)

    def scores(self, histories: list[Ints]) -> Any:
        """Sums of similarities to each history's items: (B, N), sparse."""
        return (self._history_weights(histories) @ self._matrix).tocsr()

    def _history_weights(self, histories: list[Ints]) -> Any:
        """How much each item of each history counts; an item taken twice counts twice. (B, N)."""
        last = self.config.last
        cut = [history if last is None else history[-last:] for history in histories]
        lengths = [len(history) for history in cut]
        ages = np.concatenate([np.arange(length)[::-1] for length in lengths])
        # The floor keeps very old items above 0: an exact 0 would drop them from the ranking.
        weights: Floats = np.maximum(self.config.decay**ages, 1e-30)
        matrix = sparse.csr_matrix(
            (weights, (np.repeat(np.arange(len(cut)), lengths), np.concatenate(cut))),
            shape=(len(cut), self.item_count),
        )
        return matrix


def best_of_rows(scores: Any, histories: list[Ints], k: int, exclude_seen: bool) -> Recommendations:
    """The k best items of each row of sparse scores, (B, N); those without a score are none."""
    scores.sort_indices()
    rows = []
    for row, history in enumerate(histories):
        part = slice(scores.indptr[row], scores.indptr[row + 1])
        items, values = scores.indices[part], scores.data[part].astype(np.float32)
        if exclude_seen:
            unseen = ~np.isin(items, history)
            items, values = items[unseen], values[unseen]
        rows.append(best(items, values, k))
    return Recommendations(*pack(rows, k))


def _count_matrix(split: Split, item_count: int, *, with_validation: bool) -> Any:
    """How often each user took each item. Shapes: (U, N), sparse."""
    known = known_interactions(split, with_validation=with_validation)
    shape = (len(split.valid), item_count)
    return sparse.csr_matrix((np.ones(len(known.items)), (known.users, known.items)), shape=shape)
