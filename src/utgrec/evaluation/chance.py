"""What luck alone would reach, to set beside groups in which every system does badly.

Two lotteries fill the k places of a user. Both draw from the items that the user may be given, all
of the catalogue or without the own history:

- chance: k different items, each as likely as any other;
- chance by popularity: k tickets, one after the other, each item with 1 + (training users who took
  it) of them; an item that comes up again wastes its place. The 1 gives cold items a chance at all.

The figures are exact expectations, not simulations.

Shapes: U users · N items · M metrics.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from utgrec.data.split import Split
from utgrec.evaluation.metrics import Floats, MetricTable
from utgrec.evaluation.popularity import user_counts
from utgrec.evaluation.protocol import Part, make_query
from utgrec.evaluation.result import Evaluation


class Chances(NamedTuple):
    """Every user's expected metrics under two lotteries."""

    uniform: MetricTable  # (U, M)
    by_popularity: MetricTable  # (U, M)


def chances(evaluation: Evaluation, split: Split) -> Chances:
    """The expectations for the users, targets, cuts and seen-item rule of an evaluation."""
    part: Part = "valid" if evaluation.part == "valid" else "test"
    query = make_query(split, evaluation.users, part)
    weights = 1.0 + user_counts(split, evaluation.item_count)  # (N,)
    users = len(evaluation.users)
    candidates = np.full(users, float(evaluation.item_count))
    total = np.full(users, weights.sum())
    possible = np.ones(users, dtype=np.bool_)
    if evaluation.exclude_seen:
        for row, history in enumerate(query.histories):
            seen = np.unique(history)
            candidates[row] -= len(seen)
            total[row] -= weights[seen].sum()
            possible[row] = not (history == evaluation.targets[row]).any()
    places = np.arange(max(evaluation.ks))
    # (U, places): how likely the target stands at exactly that place.
    alike = (places < candidates[:, None]) / np.maximum(candidates, 1.0)[:, None]
    share = weights[evaluation.targets] / np.maximum(total, weights[evaluation.targets])
    ticket = share[:, None] * (1.0 - share[:, None]) ** places
    names = evaluation.metrics.names
    return Chances(
        *(
            MetricTable(names, _expected(at * possible[:, None], evaluation.ks))
            for at in (alike, ticket)
        )
    )


def _expected(at: npt.NDArray[np.float64], ks: tuple[int, ...]) -> Floats:
    """Recall and NDCG at every k and MRR at the largest, in the order of `metric_table`.

    Shapes: (U, places) → (U, M).
    """
    places = np.arange(at.shape[1])
    gains = at / np.log2(places + 2.0)
    columns = [at[:, :k].sum(axis=1) for k in ks]
    columns += [gains[:, :k].sum(axis=1) for k in ks]
    columns.append((at / (places + 1.0)).sum(axis=1))
    return np.stack(columns, axis=1)
