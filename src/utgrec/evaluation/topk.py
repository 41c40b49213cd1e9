"""The best k of many scores, with ties broken by the lower item index, and seen items left out.

Equal scores are common in counts and small catalogues; a fixed rule makes every run the same.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from utgrec.catalog import Ints

NO_ITEM = -1

Scores = npt.NDArray[np.floating[Any]]


class Ranked(NamedTuple):
    """Items of one user, best first."""

    items: Ints  # (at most k,)
    scores: Scores  # (at most k,)


class Packed(NamedTuple):
    """Ranked items of B users in one rectangle."""

    items: npt.NDArray[np.int64]  # (B, k), -1 where there are fewer
    scores: npt.NDArray[np.float32]  # (B, k), -inf where there are fewer


def best(items: Ints, scores: Scores, k: int) -> Ranked:
    """The k ≥ 1 best-scored items. Shapes: items (n,) ascending, scores (n,) → at most k."""
    if len(scores) > k:
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        kept = scores >= threshold
        items, scores = items[kept], scores[kept]
    order = np.argsort(-scores, kind="stable")[:k]
    return Ranked(items[order], scores[order])


def pack(rows: Iterable[Ranked], k: int) -> Packed:
    """One rectangle of B rows. Shapes: B × at most k → (B, k)."""
    ranked = list(rows)
    items = np.full((len(ranked), k), NO_ITEM, dtype=np.int64)
    scores = np.full((len(ranked), k), -np.inf, dtype=np.float32)
    for place, row in enumerate(ranked):
        items[place, : len(row.items)] = row.items
        scores[place, : len(row.items)] = row.scores
    return Packed(items, scores)


def rank_scores(scores: Scores, histories: Sequence[Ints], k: int, *, exclude_seen: bool) -> Packed:
    """The k best items of users whose whole catalogue was scored; -inf means never.

    Shapes: scores (B, N) of B histories → (B, k).
    """
    rows = []
    for history, row in zip(histories, scores, strict=True):
        possible = row > -np.inf
        if exclude_seen:
            possible[history] = False
        items = np.flatnonzero(possible)
        rows.append(best(items, row[items], k))
    return pack(rows, k)
