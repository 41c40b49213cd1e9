"""The best possible system of a simulated shop, in the same harness as all others."""

from typing import Protocol

import numpy as np

from utgrec.catalog import Ints
from utgrec.data.similarities import Scores
from utgrec.errors import InputError
from utgrec.evaluation.protocol import Query, Recommendations
from utgrec.evaluation.topk import rank_scores


class Scorer(Protocol):
    """Anything that scores the whole catalogue."""

    def scores(self, users: Ints, histories: list[Ints]) -> Scores:
        """How likely each item is the next one. Shapes: B users → (B, N); -inf means never."""
        ...


class OracleSystem:
    """Recommends what a scorer of the whole catalogue puts first."""

    def __init__(self, scorer: Scorer, *, name: str = "Oracle") -> None:
        self.name = name
        self._scorer = scorer

    def recommend(self, query: Query, k: int, *, exclude_seen: bool) -> Recommendations:
        """The k best-scored items; those scored -inf are never recommended.

        Raises:
            InputError: a score is NaN.
        """
        scores = np.asarray(self._scorer.scores(query.users, query.histories), dtype=np.float64)
        if np.isnan(scores).any():
            user = query.users[np.isnan(scores).any(axis=1)][0]
            raise InputError(f"{self.name} scored an item of user {user} as NaN; scores must order")
        return Recommendations(*rank_scores(scores, query.histories, k, exclude_seen=exclude_seen))
