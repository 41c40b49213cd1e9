"""Items taken by the same users are similar: the cosine of tf-idf vectors over users.

A user who took n of N items counts log(N / (1 + n)): who takes everything says little. For what
comes next, `likely_to_follow` weighs a user's part by how near the two were taken, and which first.

All products of all items are quadratic in the catalogue. So few items are compared at a time that
their products have a bound, and where one item meets very many others, `nearest` looks for its
neighbours by its rarest columns alone, and compares those that it finds in full.

Shapes: U users · N items · K neighbours per item · W columns.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from utgrec.catalog import Ints

NO_ITEM = -1
MOST_MET = 100_000  # others that an item meets in the columns by which its neighbours are sought
SHORTLIST = 4  # times K items that are then compared in full
_TOGETHER = 2**21  # products of some items with all others that are held at a time, 12 bytes each
_PAIR = 8  # times the room of a product that two places of a history take

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

    Shapes: items (n,) in any order, scores (n,) → at most k.
    """
    if len(scores) > k:
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        kept = scores >= threshold
        items, scores = items[kept], scores[kept]
    order = np.lexsort((items, -scores))[:k]
    return Ranked(items[order], scores[order])


def most_similar(
    counts: Any, *, neighbours: int, shrink: float = 0.0, self_similar: bool = True
) -> Similarities:
    """Compare every item with every other. `counts` (U, N), sparse: how often who took what.

    A similarity that rests on n common users is multiplied by n / (n + shrink).
    """
    vectors = _tfidf_vectors(counts)  # (N, U)
    columns = vectors.T.tocsr()  # (U, N)
    taken = sparse.csr_matrix(vectors, copy=True)
    taken.data[:] = 1.0
    takers = taken.T.tocsr()
    found = _nothing(vectors.shape[0], min(neighbours, vectors.shape[0]))
    for rows in _blocks(np.arange(vectors.shape[0]), _met(vectors, columns)):
        block = vectors[rows] @ columns  # (rows, N)
        if shrink:
            common = taken[rows] @ takers  # the same pattern: products of positive numbers
            for products in (block, common):
                products.sort_indices()
            block.data *= common.data / (common.data + shrink)
        _keep_best(block, found, rows, None if self_similar else rows)
    return found


class Order(NamedTuple):
    """How much two items of one user say of each other, by their places in the history."""

    distance: float  # o places apart they count 1 / (1 + distance · (o - 1)); 0: wherever they are
    backward: float  # of what an item says of those before it, beside those after it
    window: int  # places; items further apart count nothing


def likely_to_follow(
    offsets: Ints, items: Ints, item_count: int, *, neighbours: int, shrink: float, order: Order
) -> Similarities:
    """For each item those that follow it soon, by the products that `most_similar` sums up.

    A user's product of two items is weighed by their places (`Order`), and so is the user when
    common users are counted for the shrinkage. Of an item that a user took several times, each time
    has its part. Every item is its own neighbour, as likely as `most_similar` has it. With distance
    0, backward 1 and a window as long as the longest history, the result is that of `most_similar`.

    Shapes: offsets (U + 1,), items (I,), the histories of users one after another.
    """
    found = _nothing(item_count, min(neighbours, item_count))
    if not len(items):
        return found
    lengths = np.diff(offsets)
    users = np.repeat(np.arange(len(lengths)), lengths)
    counts = sparse.csr_matrix(
        (np.ones(len(items)), (users, items)), shape=(len(lengths), item_count)
    )
    counts.sum_duplicates()
    vectors = _tfidf_vectors(counts)  # (N, U)
    part = 1 / _at(counts, users, items)  # (I,)
    weight = part * _at(vectors.T.tocsr(), users, items)
    places = np.arange(len(items))
    first = np.maximum(np.repeat(offsets[:-1], lengths), places - order.window)
    last = np.minimum(np.repeat(offsets[1:], lengths), places + order.window + 1)
    by_item = np.argsort(items, kind="stable")  # places, those of the first item first
    starts = np.concatenate([[0], np.cumsum(np.bincount(items, minlength=item_count))])

    def meet(places: Ints, start: int, rows: int) -> tuple[Any, Any]:
        """Sums of products and of common users of the items `start` …: (rows, N), sparse."""
        here = np.repeat(places, (last - first)[places])
        there = _ranges(first[places], last[places])
        nearness = np.where(there > here, 1.0, order.backward)
        nearness /= 1 + order.distance * np.maximum(np.abs(there - here) - 1, 0)
        products = nearness * weight[here] * weight[there]
        kept = (products > 0) & (items[here] != items[there])
        common = (nearness * part[here] * part[there])[kept]
        at, shape = (items[here[kept]] - start, items[there[kept]]), (rows, item_count)
        return (
            sparse.csr_matrix((products[kept], at), shape=shape),
            sparse.csr_matrix((common, at), shape=shape),
        )

    takers = np.diff(vectors.indptr)  # (N,)
    own = sparse.diags_array(takers / np.maximum(takers + shrink, 1)).tocsr()
    met = np.concatenate([[0], np.cumsum((last - first)[by_item])])[starts] * _PAIR
    for rows in _blocks(np.arange(item_count), np.diff(met)):
        start, stop = int(rows[0]), int(rows[-1]) + 1
        parts = np.array_split(
            by_item[starts[start] : starts[stop]], 1 + (met[stop] - met[start]) // _TOGETHER
        )
        sums = [meet(places, start, len(rows)) for places in parts]
        block, common = (sum(of[1:], of[0]) for of in zip(*sums, strict=True))
        block.data *= common.data / (common.data + shrink)  # the same pattern: sums of positives
        _keep_best(block + own[start:stop], found, rows, None)
    return found


def nearest(
    vectors: Any, others: Any, *, neighbours: int, first: int | None = None, most: int = MOST_MET
) -> Similarities:
    """The K rows of `others` (N, W) with the largest products with each row of `vectors` (n, W).

    Both are sparse and not negative; only positive products count. If `vectors` are themselves rows
    of `others`, `first` is the place of the first one, and none of them is its own neighbour.

    A row that meets more than `most` others, each counted once for every column that both have,
    looks for them by its rarest columns alone: as many as meet no more than that, and one more if
    they meet fewer than 4 · K. The best 4 · K are then compared in full. So a row costs much the
    same in a catalogue of any size.
    """
    used = np.unique(others.indices)  # most of the columns that words are hashed to are empty
    columns = others[:, used].T.tocsr()  # (W', N)
    asked = sparse.csr_matrix(vectors[:, used])
    asked.sort_indices()
    met = _met(asked, columns)
    found = _nothing(vectors.shape[0], min(neighbours, others.shape[0]))

    def own(rows: Ints) -> Ints | None:
        return None if first is None else rows + first

    for rows in _blocks(np.flatnonzero(met <= most), met):
        _keep_best(asked[rows] @ columns, found, rows, own(rows))
    wide = np.flatnonzero(met > most)
    if len(wide):
        shortlisted = SHORTLIST * neighbours
        searched = _rarest(asked, columns, most, shortlisted)
        full = columns.T.tocsr()
        for rows in _blocks(wide, _met(searched, columns)):
            shortlist = _nothing(len(rows), min(shortlisted, others.shape[0]))
            block = searched[rows] @ columns
            _keep_best(block, shortlist, np.arange(len(rows)), own(rows))
            _keep_best(_compare(asked[rows], full, shortlist.items), found, rows, None)
    return found


def unit_rows(vectors: Any) -> Any:
    """Each row of a sparse matrix divided by its length; rows of zeros stay."""
    norms = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel())
    out = vectors.copy()
    out.data /= np.repeat(norms, np.diff(out.indptr))
    return out


def _at(matrix: Any, rows: Ints, columns: Ints) -> Scores:
    """Some entries of a sparse matrix. Shapes: (m,), (m,) → (m,)."""
    entries: Scores = np.asarray(matrix[rows, columns]).ravel()
    return entries


def _ranges(first: Ints, last: Ints) -> Ints:
    """All integers of first … last - 1, one range after another. Shapes: (n,), (n,) → (sum,)."""
    lengths = last - first
    ends = np.cumsum(lengths)
    ranges: Ints = np.arange(lengths.sum()) + np.repeat(first - (ends - lengths), lengths)
    return ranges


def _nothing(rows: int, width: int) -> Similarities:
    """Room for the neighbours of some items."""
    return Similarities(
        np.full((rows, width), NO_ITEM, dtype=np.int32), np.zeros((rows, width), dtype=np.float32)
    )


def _met(vectors: Any, columns: Any) -> Ints:
    """How many others each row meets in its columns: vectors (n, W), columns (W, N) → (n,)."""
    holders = np.diff(columns.indptr).astype(np.int64)  # (W,)
    before = np.concatenate([[0], np.cumsum(holders[vectors.indices])])
    met: Ints = before[vectors.indptr[1:]] - before[vectors.indptr[:-1]]
    return met


def _blocks(rows: Ints, met: Ints) -> Iterator[Ints]:
    """Rows that are compared together: one, or as many as meet no more than _TOGETHER others."""
    block = np.cumsum(met[rows]) // _TOGETHER
    yield from np.split(rows, np.flatnonzero(np.diff(block)) + 1) if len(rows) else ()


def _rarest(vectors: Any, columns: Any, most: int, least: int) -> Any:
    """Each row with its rarest columns: those that meet at most `most`, more if under `least`.

    Shapes: (n, W), (W, N) → (n, W).
    """
    holders = np.diff(columns.indptr).astype(np.int64)[vectors.indices]
    row = np.repeat(np.arange(vectors.shape[0]), np.diff(vectors.indptr))
    order = np.lexsort((vectors.indices, holders, row))  # the rarest of each row first
    met = np.cumsum(holders[order])
    starts = vectors.indptr[:-1][row]  # in this order, too, a row's entries begin where they did
    met -= np.concatenate([[0], met])[starts]
    kept = np.zeros(len(order), dtype=np.bool_)
    kept[order] = (met <= most) | (met - holders[order] < least)
    counts = np.bincount(row[kept], minlength=vectors.shape[0])
    return sparse.csr_matrix(
        (vectors.data[kept], vectors.indices[kept], np.concatenate([[0], np.cumsum(counts)])),
        shape=vectors.shape,
    )


def _compare(vectors: Any, others: Any, items: npt.NDArray[np.int32]) -> Any:
    """The products of rows (n, W) with some others (N, W) each, `items` (n, C): (n, N), sparse."""
    query = np.zeros(vectors.shape[1])
    products, counts = [], [0]
    for row, chosen in enumerate(items):
        part = slice(vectors.indptr[row], vectors.indptr[row + 1])
        query[vectors.indices[part]] = vectors.data[part]
        products.append(others[chosen[chosen != NO_ITEM]] @ query)
        counts.append(len(products[-1]))
        query[vectors.indices[part]] = 0
    return sparse.csr_matrix(
        (np.concatenate(products), items[items != NO_ITEM], np.cumsum(counts)),
        shape=(len(items), others.shape[0]),
    )


def _keep_best(block: Any, out: Similarities, rows: Ints, own: Ints | None) -> None:
    """Write the best of each row of a block of similarities into these rows of `out`.

    `own` are the items of the rows themselves, which are left out; None leaves out none.
    """
    width = out.items.shape[1]
    for at, row in enumerate(rows.tolist()):
        part = slice(block.indptr[at], block.indptr[at + 1])
        others, similar = block.indices[part], block.data[part]
        if own is not None:
            different = others != own[at]
            others, similar = others[different], similar[different]
        # float32 makes equal what differs only by the order of summation, so that ties are
        # broken by the rule of `best` and not by noise in the last digits.
        ranked = best(others, similar.astype(np.float32), width)
        out.items[row, : len(ranked.items)] = ranked.items
        out.values[row, : len(ranked.items)] = ranked.scores


def _tfidf_vectors(counts: Any) -> Any:
    """Items as unit vectors over users. Shapes: (U, N) → (N, U), sparse."""
    distinct = np.diff(counts.indptr)  # (U,) different items of each user
    # A user who took (nearly) all items says nothing; the logarithm would go below 0 there.
    idf = np.maximum(np.log(counts.shape[1]) - np.log1p(distinct), 0.0)
    weighted = counts.copy()
    weighted.data = np.sqrt(weighted.data) * np.repeat(idf, distinct)
    weighted.eliminate_zeros()
    return unit_rows(weighted.T.tocsr())
