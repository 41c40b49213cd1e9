"""The best k of many scores, with ties broken by the lower item index, and seen items left out.

Equal scores are common in counts and small catalogues; a fixed rule makes every run the same.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from utgrec.catalog import Ints
from utgrec.data.similarities import NO_ITEM, Ranked, Scores, best


class Packed(NamedTuple):
    """Ranked items of B users in one rectangle."""

    items: npt.NDArray[np.int64]  # (B, k), -1 where there are fewer
    scores: npt.NDArray[np.float32]  # (B, k), -inf where there are fewer


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
