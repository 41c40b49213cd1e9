"""The families that the library `implicit` fits: ItemKNN with BM25 weights, and ALS.

Shapes: B users of a batch · U users · N items · D factors.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from utgrec.catalog import Ints
from utgrec.config import require
from utgrec.data.similarities import NO_ITEM, Similarities, best
from utgrec.data.split import Split
from utgrec.evaluation.baselines.family import FitInput, grid_trials, import_optional
from utgrec.evaluation.itemknn import ItemKNN, ItemKNNConfig
from utgrec.evaluation.popularity import known_interactions
from utgrec.evaluation.protocol import Query, Recommendations
from utgrec.evaluation.topk import rank_scores
from utgrec.progress import Progress, silent


@dataclasses.dataclass(frozen=True, kw_only=True)
class BM25Config:
    """Settings of ItemKNN with BM25 weights."""

    neighbours: int = 100
    """Most similar items kept per item; the item itself is one of them."""
    k1: float = 1.2
    """How soon another interaction of the same user and item stops to matter."""
    b: float = 0.75
    """How much popular items are weighed down: 0 not at all, 1 fully."""
    decay: float = 1.0
    """Weight of an item of the history relative to the one taken after it: 1 forgets nothing."""

    def __post_init__(self) -> None:
        require(self.neighbours >= 1, f"neighbours must be at least 1, got {self.neighbours}")
        require(self.k1 > 0, f"k1 must be above 0, got {self.k1}")
        require(0 <= self.b <= 1, f"b must be in [0, 1], got {self.b}")
        require(0 < self.decay <= 1, f"decay must be in (0, 1], got {self.decay}")


class BM25Family:
    """Items taken by the same users, weighted by BM25 (similarities by `implicit`)."""

    name = "bm25"
    title = "ItemKNN, BM25"

    def trials(self, budget: int, *, exclude_seen: bool = True) -> Sequence[BM25Config]:
        """Neighbours, k1, b, and decay with age."""
        grid = {
            "neighbours": (50, 100, 200, 500),
            "k1": (0.5, 1.2, 3.0),
            "b": (0.1, 0.5, 0.75, 1.0),
            "decay": (1.0, 0.8, 0.6, 0.4, 0.2),
        }
        return grid_trials(BM25Config(), grid, budget)

    def fit(self, given: FitInput, settings: BM25Config, progress: Progress = silent) -> ItemKNN:
        """Compare all items; scores are summed over the history as for the other ItemKNN."""
        models = import_optional("implicit.nearest_neighbours", self.name)
        # Items that nobody took have no vector, and implicit would divide by 0.
        known = np.unique(given.split.train)
        counts = count_matrix(given.split, given.item_count)[:, known]
        # In two steps, since implicit's BM25Recommender warns about its own intermediate format.
        weighted = models.bm25_weight(counts.T, K1=settings.k1, B=settings.b).T.tocsr()
        model = models.ItemItemRecommender(K=settings.neighbours, num_threads=1)
        model.fit(weighted, show_progress=False)
        similarities = _widen(model.similarity.tocsr(), known, given.item_count)
        config = ItemKNNConfig(neighbours=settings.neighbours, decay=settings.decay)
        system = ItemKNN(similarities, config)
        system.name = self.title
        return system


@dataclasses.dataclass(frozen=True, kw_only=True)
class ALSConfig:
    """Settings of implicit-feedback matrix factorisation by alternating least squares."""

    factors: int = 64
    """Width of a user's and of an item's vector, D."""
    regularization: float = 0.05
    """Weight of the squared length of the vectors."""
    alpha: float = 10.0
    """Confidence in an interaction, relative to 1 for a pair that never met."""
    iterations: int = 15
    """Alternations between users and items."""

    def __post_init__(self) -> None:
        require(self.factors >= 1, f"factors must be at least 1, got {self.factors}")
        require(self.iterations >= 1, f"iterations must be at least 1, got {self.iterations}")
        require(
            self.regularization >= 0 and self.alpha > 0,
            f"regularization is at least 0 and alpha above 0, got {self}",
        )


class ALSFamily:
    """Matrix factorisation by alternating least squares (factors by `implicit`)."""

    name = "als"
    title = "ALS"

    def trials(self, budget: int, *, exclude_seen: bool = True) -> Sequence[ALSConfig]:
        """Width, regularisation, confidence and iterations."""
        grid = {
            "factors": (32, 64, 128, 256),
            "regularization": (0.01, 0.05, 0.5),
            "alpha": (1.0, 10.0, 40.0),
            "iterations": (15, 30),
        }
        return grid_trials(ALSConfig(), grid, budget)

    def fit(self, given: FitInput, settings: ALSConfig, progress: Progress = silent) -> "ALS":
        """Factorise who took what how often."""
        als = import_optional("implicit.cpu.als", self.name)
        threads = import_optional("threadpoolctl", self.name)
        # Its own threads and those of the linear algebra would fight for the cores.
        with threads.threadpool_limits(1, "blas"):
            model = als.AlternatingLeastSquares(
                factors=settings.factors,
                regularization=settings.regularization,
                alpha=settings.alpha,
                iterations=settings.iterations,
                num_threads=1,
                random_state=given.seed,
            )
            model.fit(count_matrix(given.split, given.item_count), show_progress=False)
        return ALS(model, self.title)


class ALS:
    """Scores items by the product of their vector with the one that fits the user's history."""

    def __init__(self, model: Any, name: str) -> None:
        """`model`: a fitted AlternatingLeastSquares."""
        self.name = name
        self.model = model

    def recommend(self, query: Query, k: int, *, exclude_seen: bool) -> Recommendations:
        """The k best-scored items; the user's vector is solved for anew from the history."""
        counts = history_matrix(query.histories, len(self.model.item_factors))  # (B, N)
        users = self.model.recalculate_user(np.arange(len(query.users)), counts)  # (B, D)
        scores = users @ self.model.item_factors.T  # (B, N)
        return Recommendations(*rank_scores(scores, query.histories, k, exclude_seen=exclude_seen))


def count_matrix(split: Split, item_count: int) -> Any:
    """How often each user took each item in the training part. Shapes: (U, N), sparse."""
    known = known_interactions(split, with_validation=False)
    counts = sparse.csr_matrix(
        (np.ones(len(known.items), np.float32), (known.users, known.items)),
        shape=(len(split.valid), item_count),
    )
    counts.sum_duplicates()
    return counts


def history_matrix(histories: Sequence[Ints], item_count: int) -> Any:
    """How often each history holds each item. Shapes: B histories → (B, N), sparse."""
    rows = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    columns = np.concatenate([np.asarray(history, np.int64) for history in histories])
    counts = sparse.csr_matrix(
        (np.ones(len(columns), np.float32), (rows, columns)), shape=(len(histories), item_count)
    )
    counts.sum_duplicates()
    return counts


def _widen(similarity: Any, known: npt.NDArray[np.integer[Any]], item_count: int) -> Similarities:
    """Similarities among the known items, as rows over the whole catalogue, best first."""
    width = max(1, int(np.diff(similarity.indptr).max(initial=0)))
    items = np.full((item_count, width), NO_ITEM, dtype=np.int32)
    values = np.zeros((item_count, width), dtype=np.float32)
    similarity.sort_indices()
    for row, item in enumerate(known):
        part = slice(similarity.indptr[row], similarity.indptr[row + 1])
        ranked = best(known[similarity.indices[part]], similarity.data[part], width)
        items[item, : len(ranked.items)] = ranked.items
        values[item, : len(ranked.items)] = ranked.scores
    return Similarities(items, values)
