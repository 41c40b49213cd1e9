"""Items taken by the same users are similar: the cosine of tf-idf vectors over users.

A user who took n of N items counts log(N / (1 + n)): who takes everything says little.

Shapes: U users · N items · K neighbours per item.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from utgrec.catalog import Ints

NO_ITEM = -1
_ROWS = 1024  # items whose similarities to all others are held at a time

Scores = npt.NDArray[np.floating[Any]]


class Ranked(NamedTuple):
    """Items of one user, best first."""

    items: Ints  # (at most k,)
    scores: Scores  # (at most k,)


class Similarities(NamedTuple):
    """The K most similar items of each item, best first."""

    items: npt.NDArray[np.int32]  # (N, K), -1 where there are fewer
    values: npt.NDArray[np.float32]  # (N, K), 0 where there are fewer

    def cut(self, neighbours: int) -> "Similarities":
        """The same with fewer neighbours."""
        return Similarities(self.items[:, :neighbours], self.values[:, :neighbours])


def best(items: Ints, scores: Scores, k: int) -> Ranked:
    """The k ≥ 1 best-scored items; of equal ones the lower index.

    Shapes: items (n,) ascending, scores (n,) → at most k.
    """
    if len(scores) > k:
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        kept = scores >= threshold
        items, scores = items[kept], scores[kept]
    order = np.argsort(-scores, kind="stable")[:k]
    return Ranked(items[order], scores[order])


def most_similar(
    counts: Any, *, neighbours: int, shrink: float = 0.0, self_similar: bool = True
) -> Similarities:
    """Compare every item with every other. `counts` (U, N), sparse: how often who took what.

    A similarity that rests on n common users is multiplied by n / (n + shrink).
    """
    vectors = _tfidf_vectors(counts)  # (N, U)
    item_count = vectors.shape[0]
    taken = sparse.csr_matrix(vectors, copy=True)
    taken.data[:] = 1.0
    width = min(neighbours, item_count)
    items = np.full((item_count, width), NO_ITEM, dtype=np.int32)
    values = np.zeros((item_count, width), dtype=np.float32)
    for start in range(0, item_count, _ROWS):
        block = (vectors[start : start + _ROWS] @ vectors.T).tocsr()  # (rows, N)
        block.sort_indices()
        if shrink:
            common = (taken[start : start + _ROWS] @ taken.T).tocsr()
            common.sort_indices()  # the same pattern as `block`: products of positive numbers
            block.data *= common.data / (common.data + shrink)
        _keep_best(block, Similarities(items, values), start, None if self_similar else start)
    return Similarities(items, values)


def nearest(
    vectors: Any, others: Any, *, neighbours: int, first: int | None = None
) -> Similarities:
    """The K rows of `others` (N, W) with the largest products with each row of `vectors` (n, W).

    Both are sparse; only positive products count. If `vectors` are themselves rows of `others`,
    `first` is the place of the first one, and none of them is its own neighbour.
    """
    width = min(neighbours, others.shape[0])
    items = np.full((vectors.shape[0], width), NO_ITEM, dtype=np.int32)
    values = np.zeros((vectors.shape[0], width), dtype=np.float32)
    columns = others.T.tocsr()
    for start in range(0, vectors.shape[0], _ROWS):
        block = (vectors[start : start + _ROWS] @ columns).tocsr()  # (rows, N)
        block.sort_indices()
        own = None if first is None else first + start
        _keep_best(block, Similarities(items, values), start, own)
    return Similarities(items, values)


def unit_rows(vectors: Any) -> Any:
    """Each row of a sparse matrix divided by its length; rows of zeros stay."""
    norms = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel())
    out = vectors.copy()
    out.data /= np.repeat(norms, np.diff(out.indptr))
    return out


def _keep_best(block: Any, out: Similarities, start: int, own: int | None) -> None:
    """Write the best of each row of a block of similarities into the rows from `start` on.

    The rows' own items are those from `own` on, and are left out; None leaves out none.
    """
    width = out.items.shape[1]
    for row in range(block.shape[0]):
        part = slice(block.indptr[row], block.indptr[row + 1])
        others, similar = block.indices[part], block.data[part]
        if own is not None:
            different = others != own + row
            others, similar = others[different], similar[different]
        # float32 makes equal what differs only by the order of summation, so that ties are
        # broken by the rule of `best` and not by noise in the last digits.
        ranked = best(others, similar.astype(np.float32), width)
        out.items[start + row, : len(ranked.items)] = ranked.items
        out.values[start + row, : len(ranked.items)] = ranked.scores


def _tfidf_vectors(counts: Any) -> Any:
    """Items as unit vectors over users. Shapes: (U, N) → (N, U), sparse."""
    distinct = np.diff(counts.indptr)  # (U,) different items of each user
    # A user who took (nearly) all items says nothing; the logarithm would go below 0 there.
    idf = np.maximum(np.log(counts.shape[1]) - np.log1p(distinct), 0.0)
    weighted = counts.copy()
    weighted.data = np.sqrt(weighted.data) * np.repeat(idf, distinct)
    weighted.eliminate_zeros()
    return unit_rows(weighted.T.tocsr())
