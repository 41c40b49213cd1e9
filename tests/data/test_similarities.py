"""Neighbours of sparse rows: the rare columns find what all of them find, blocks change nothing."""

import numpy as np
import pytest
from scipy import sparse

from utgrec.data import similarities
from utgrec.data.similarities import (
    NO_ITEM,
    Order,
    best,
    likely_to_follow,
    most_similar,
    nearest,
    unit_rows,
)

NO_ORDER = Order(distance=0.0, backward=1.0, window=1000)


def zipf_rows(rows: int, columns: int = 400, seed: int = 0) -> sparse.csr_matrix:
    """Unit rows in whose columns rare ones weigh more, as those of words."""
    rng = np.random.default_rng(seed)
    picks = np.minimum(rng.zipf(1.3, (rows, 9)), columns) - 1
    row = np.repeat(np.arange(rows), 9)
    counts = sparse.csr_matrix((np.ones(rows * 9), (row, picks.ravel())), shape=(rows, columns))
    holders = np.bincount(counts.indices, minlength=columns)
    counts.data = np.log(rows / holders[counts.indices]) + 0.01
    return unit_rows(counts)


def histories(users: int = 50, items: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and items, of which users take some several times; the last item nobody takes."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(0, 12, users)
    taken = np.minimum(rng.zipf(1.3, lengths.sum()), items - 1) - 1
    return np.concatenate([[0], np.cumsum(lengths)]), taken


def by_hand(vectors: sparse.csr_matrix, row: int, neighbours: int) -> list[int]:
    products = (vectors @ vectors[row].T).toarray().ravel().astype(np.float32)
    products[row] = 0
    order = np.argsort(-products, kind="stable")[:neighbours]
    return [int(item) if products[item] > 0 else NO_ITEM for item in order]


def test_the_best_of_equal_ones_in_any_order() -> None:
    items, scores = np.array([7, 2, 9, 4]), np.array([1.0, 1.0, 3.0, 1.0])
    ranked = best(items, scores, 3)
    assert ranked.items.tolist() == [9, 2, 4] and ranked.scores.tolist() == [3.0, 1.0, 1.0]


@pytest.mark.parametrize("together", [1, 50, 10**9])
def test_how_many_are_compared_together_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    vectors = zipf_rows(60)
    taken = sparse.csr_matrix((vectors.T > 0).astype(float))
    whole = (
        nearest(vectors, vectors, neighbours=5, first=0),
        most_similar(taken, neighbours=5, shrink=2.0),
        likely_to_follow(*histories(), 30, neighbours=5, shrink=2.0, order=Order(0.3, 0.5, 4)),
    )
    monkeypatch.setattr(similarities, "_TOGETHER", together)
    parts = (
        nearest(vectors, vectors, neighbours=5, first=0),
        most_similar(taken, neighbours=5, shrink=2.0),
        likely_to_follow(*histories(), 30, neighbours=5, shrink=2.0, order=Order(0.3, 0.5, 4)),
    )
    for one, other in zip(whole, parts, strict=True):
        assert np.array_equal(one.items, other.items)
        assert np.array_equal(one.values, other.values)


@pytest.mark.parametrize("shrink", [0.0, 2.0])
def test_without_order_who_follows_is_who_is_similar(shrink: float) -> None:
    offsets, items = histories()
    users = np.repeat(np.arange(50), np.diff(offsets))
    counts = sparse.csr_matrix((np.ones(len(items)), (users, items)), shape=(50, 30))
    similar = most_similar(counts, neighbours=8, shrink=shrink)
    follow = likely_to_follow(offsets, items, 30, neighbours=8, shrink=shrink, order=NO_ORDER)
    assert np.array_equal(follow.items, similar.items)
    np.testing.assert_allclose(follow.values, similar.values, rtol=1e-6)


@pytest.mark.parametrize("order", [Order(0.3, 0.5, 4), Order(0.0, 0.0, 1), Order(2.0, 1.0, 100)])
def test_who_follows_as_by_hand(order: Order) -> None:
    offsets, items = histories()
    shrink, count = 2.0, 30
    vectors, times = np.zeros((count, 50)), np.zeros((count, 50))
    for user in range(50):
        own = items[offsets[user] : offsets[user + 1]]
        for item in own:
            times[item, user] += 1
        idf = max(np.log(count) - np.log(1 + len(set(own))), 0)
        vectors[:, user] = np.sqrt(times[:, user]) * idf
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    products, common = np.zeros((count, count)), np.zeros((count, count))
    for user in range(50):
        own = items[offsets[user] : offsets[user + 1]]
        for at, one in enumerate(own):
            for place, other in enumerate(own):
                if one == other or abs(place - at) > order.window:
                    continue
                near = 1 / (1 + order.distance * (abs(place - at) - 1))
                near *= 1 if place > at else order.backward
                near /= times[one, user] * times[other, user]
                products[one, other] += near * vectors[one, user] * vectors[other, user]
                common[one, other] += near
    similar = products * common / (common + shrink)
    takers = (times > 0).sum(axis=1)
    similar[np.arange(count), np.arange(count)] = takers / (takers + shrink)
    found = likely_to_follow(offsets, items, count, neighbours=count, shrink=shrink, order=order)
    dense = np.zeros((count, count))
    for row in range(count):
        kept = found.items[row] != NO_ITEM
        dense[row, found.items[row][kept]] = found.values[row][kept]
        assert (np.diff(found.values[row]) <= 0).all()
    np.testing.assert_allclose(dense, similar, atol=1e-6)


def test_nobody_and_users_of_one_item_say_nothing() -> None:
    order = Order(0.3, 0.5, 4)
    for offsets, items, own in (
        ([0], [], []),
        ([0, 0, 0], [], []),
        ([0, 1, 2], [2, 2], [2]),
        ([0, 2], [1, 1], [1]),
        ([0, 3], [0, 1, 2], []),  # who took everything says nothing
    ):
        taken = np.array(items, dtype=np.int32)
        found = likely_to_follow(np.array(offsets), taken, 3, neighbours=2, shrink=0.0, order=order)
        for item in range(3):
            expected = ([item, NO_ITEM], [1.0, 0.0]) if item in own else ([NO_ITEM] * 2, [0.0] * 2)
            assert (found.items[item].tolist(), found.values[item].tolist()) == expected


def test_blocks_hold_a_bounded_number_of_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarities, "_TOGETHER", 1000)
    vectors = zipf_rows(200)
    met = similarities._met(vectors, vectors.T.tocsr())
    blocks = list(similarities._blocks(np.arange(200), met))
    assert np.concatenate(blocks).tolist() == list(range(200))
    assert all(met[block].sum() <= 1000 + met.max() for block in blocks)
    assert 1 < len(blocks) < 200


def test_rare_columns_find_what_all_of_them_find() -> None:
    vectors = zipf_rows(500)
    met = similarities._met(vectors, vectors.T.tocsr())
    most = int(np.quantile(met, 0.3))
    exact = nearest(vectors, vectors, neighbours=10, first=0)
    found = nearest(vectors, vectors, neighbours=10, first=0, most=most)
    for row in range(0, 500, 25):
        assert exact.items[row].tolist() == by_hand(vectors, row, 10)
    # What met few is exact; of all others the values are those of all columns.
    few = met <= most
    assert np.array_equal(found.items[few], exact.items[few])
    for row in np.flatnonzero(~few):
        products = (vectors[found.items[row]] @ vectors[row].T).toarray().ravel()
        np.testing.assert_allclose(found.values[row], products, rtol=1e-6)
        assert (np.diff(found.values[row]) <= 0).all() and row not in found.items[row]
    assert found.values.sum() > 0.97 * exact.values.sum()
    # A row alone, and rows of a later catalogue, find the same.
    alone = nearest(vectors[400:410], vectors, neighbours=10, first=400, most=most)
    assert np.array_equal(alone.items, found.items[400:410])


def test_columns_that_meet_too_few_are_not_enough() -> None:
    """However small the bound is, enough others are met to choose from."""
    vectors = zipf_rows(300)
    columns = vectors.T.tocsr()
    holders = np.diff(columns.indptr)
    for most, least in ((0, 1), (0, 40), (20, 40), (60, 40)):
        kept = similarities._rarest(vectors, columns, most, least)
        for row in range(300):
            own = vectors.indices[vectors.indptr[row] : vectors.indptr[row + 1]]
            met, expected = np.int64(0), set()
            for column in sorted(own.tolist(), key=lambda place: (holders[place], place)):
                if met < least or met + holders[column] <= most:
                    expected.add(column)
                met += holders[column]
            assert set(kept.indices[kept.indptr[row] : kept.indptr[row + 1]]) == expected
    found = nearest(vectors, vectors, neighbours=3, first=0, most=0)
    exact = nearest(vectors, vectors, neighbours=3, first=0)
    assert np.array_equal(found.items == NO_ITEM, exact.items == NO_ITEM)


def test_rows_of_zeros_and_columns_of_nobody() -> None:
    vectors = zipf_rows(20)
    vectors = sparse.vstack([vectors, sparse.csr_matrix((2, 400))]).tocsr()
    used = set(vectors.indices.tolist())
    free = next(column for column in range(400) if column not in used)
    unknown = sparse.csr_matrix((np.ones(1), ([0], [free])), shape=(1, 400))
    for most in (0, 10**9):
        found = nearest(vectors, vectors, neighbours=3, first=0, most=most)
        assert (found.items[20:] == NO_ITEM).all() and (found.values[20:] == 0).all()
        assert (nearest(unknown, vectors, neighbours=3, most=most).items == NO_ITEM).all()
    nothing = sparse.csr_matrix((0, 400))
    assert nearest(nothing, vectors, neighbours=3).items.shape == (0, 3)
    assert nearest(vectors, nothing, neighbours=3).items.shape == (22, 0)
