"""ItemKNN that reads, and knows order: items follow others, or have the words of their texts.

These are the two memories of the recommender (`recommender/companions.py`, `contents.py`) without
its network. Both sums of similarities become shares of a user's total, and are added with a weight.
It finds items that nobody has taken, and needs no training.

Shapes: B users · N items.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from utgrec.config import require
from utgrec.data.similarities import Similarities, likely_to_follow, nearest
from utgrec.data.wording import count_words, word_vectors
from utgrec.evaluation.baselines.counting import kept_similarities
from utgrec.evaluation.baselines.family import FitInput, grid_trials, scratch
from utgrec.evaluation.itemknn import ItemKNN, ItemKNNConfig, best_of_rows
from utgrec.evaluation.protocol import Query, Recommendations
from utgrec.progress import Progress, silent
from utgrec.recommender.companions import CompanionsConfig
from utgrec.recommender.contents import ContentsConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextKNNConfig:
    """Settings of ItemKNN + text."""

    text: float = 0.5
    """Share of the words' similarities; that of the counts is the rest."""
    shrink: float = 5.0
    """What rests on n common users is multiplied by n / (n + shrink) (users)."""
    decay: float = 0.8
    """Weight of an item relative to the one taken after it: 1 forgets nothing."""
    neighbours: int = 100
    """Most similar items kept per item, of either kind."""

    def __post_init__(self) -> None:
        require(0 <= self.text <= 1, f"text must be in [0, 1], got {self.text}")
        require(self.neighbours >= 1, f"neighbours must be at least 1, got {self.neighbours}")


class TextKNN:
    """Two kinds of neighbours, added."""

    name = "ItemKNN + text"

    def __init__(self, counted: ItemKNN, alike: ItemKNN, text: float) -> None:
        self._counted, self._alike, self._text = counted, alike, text

    def recommend(self, query: Query, k: int, *, exclude_seen: bool) -> Recommendations:
        """The k best-scored items; fewer where the history has fewer similar items."""
        scores = self._text * _shares(self._alike.scores(query.histories))
        scores += (1 - self._text) * _shares(self._counted.scores(query.histories))
        return best_of_rows(scores.tocsr(), query.histories, k, exclude_seen)


class TextKNNFamily:
    """Items that the same users took soon after, and items of the same words."""

    name = "itemknn-text"
    title = "ItemKNN + text"

    def trials(self, budget: int, *, exclude_seen: bool = True) -> Sequence[TextKNNConfig]:
        """How much words count, shrinkage and decay."""
        grid = {
            "text": (0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
            "shrink": (0.0, 5.0, 20.0),
            "decay": (1.0, 0.8, 0.6, 0.4, 0.2),
        }
        return grid_trials(TextKNNConfig(), grid, budget)

    def fit(self, given: FitInput, settings: TextKNNConfig, progress: Progress = silent) -> TextKNN:
        """Compare all items in both ways; each is done once for all settings that share it."""
        shared = ItemKNNConfig(
            neighbours=settings.neighbours, shrink=settings.shrink, decay=settings.decay
        )
        following, alike = _following(given, settings), _alike(given, settings)
        return TextKNN(ItemKNN(following, shared), ItemKNN(alike, shared), settings.text)


def _following(given: FitInput, settings: TextKNNConfig) -> Similarities:
    """The items that most likely follow each item, as the recommender finds them."""
    order = CompanionsConfig().order
    made_from = {
        "neighbours": settings.neighbours,
        "shrink": settings.shrink,
        "order": order._asdict(),
    }
    return kept_similarities(
        scratch(given, "following", made_from),
        lambda: likely_to_follow(
            given.split.offsets,
            given.split.train,
            given.item_count,
            neighbours=settings.neighbours,
            shrink=settings.shrink,
            order=order,
        ),
    )


def _alike(given: FitInput, settings: TextKNNConfig) -> Similarities:
    """The items whose texts are most like those of each item, as the recommender finds them."""
    most_common = ContentsConfig().most_common
    made_from = {
        "texts": given.domain.fingerprint,
        "neighbours": settings.neighbours,
        "most_common": most_common,
    }

    def make() -> Similarities:
        counts = count_words(given.domain.catalog.texts)
        vectors = word_vectors(counts, counts, most_common=most_common)
        return nearest(vectors, vectors, neighbours=settings.neighbours, first=0)

    return kept_similarities(scratch(given, "texts", made_from), make)


def _shares(scores: Any) -> Any:
    """Each row divided by its sum; rows of zeros stay. Shapes: (B, N), sparse."""
    totals = np.asarray(scores.sum(axis=1)).ravel()
    return sparse.diags_array(1 / np.maximum(totals, 1e-12)) @ scores
