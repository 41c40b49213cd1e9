"""BM25 and ALS: what `implicit` fits, in this project's harness."""

import numpy as np
import pytest
from small_shop import ITEMS, fit_input, noisy_histories, write_shop

from utgrec.evaluation.baselines.matrices import (
    ALSConfig,
    ALSFamily,
    BM25Config,
    BM25Family,
    count_matrix,
)
from utgrec.evaluation.protocol import make_query

models = pytest.importorskip(
    "implicit.nearest_neighbours",
    reason="implicit is not installed (pip install 'utgrec[baselines]')",
)


@pytest.fixture
def given(tmp_path):
    histories = [[i for i in history if i != 7] for history in noisy_histories()]  # 7 is unknown
    return fit_input(write_shop(tmp_path / "shop", histories), tmp_path / "work")


def test_bm25_by_hand(given):
    """Against the formula of Robertson and Zaragoza, written with dense loops."""
    settings = BM25Config(neighbours=ITEMS, k1=1.5, b=0.6)
    counts = count_matrix(given.split, ITEMS).toarray()  # (U, N)
    known = counts.sum(axis=0) > 0
    assert not known[7]
    users, items = counts.shape[0], counts[:, known]
    idf = np.log(items.shape[1]) - np.log1p((items > 0).sum(axis=1))  # of users, over items
    lengths = items.sum(axis=0)  # (known,)
    norm = 1 - settings.b + settings.b * lengths / lengths.mean()
    weighted = np.zeros_like(items)
    for user in range(users):
        for item in range(items.shape[1]):
            count = items[user, item]
            if count:
                saturated = count * (settings.k1 + 1) / (settings.k1 * norm[item] + count)
                weighted[user, item] = saturated * idf[user]
    expected = np.zeros((ITEMS, ITEMS))
    expected[np.ix_(known, known)] = weighted.T @ weighted
    found = BM25Family().fit(given, settings)._matrix.toarray()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_fewer_neighbours_are_the_most_similar(given):
    many = BM25Family().fit(given, BM25Config(neighbours=ITEMS))._matrix.toarray()
    few = BM25Family().fit(given, BM25Config(neighbours=4))._matrix.toarray()
    assert (few > 0).sum(axis=1).max() == 4
    for row_many, row_few in zip(many, few, strict=True):
        kept = row_few > 0
        np.testing.assert_allclose(row_few[kept], row_many[kept], rtol=1e-6)
        if kept.any():
            assert row_many[~kept].max() <= row_few[kept].min() * (1 + 1e-6)


def test_als_solves_the_users_vector(given):
    """A user's vector is the closed form of Hu, Koren and Volinsky for the history given."""
    settings = ALSConfig(factors=6, regularization=0.1, alpha=5.0, iterations=4)
    system = ALSFamily().fit(given, settings)
    query = make_query(given.split, given.split.evaluated[:9], "test")
    answer = system.recommend(query, ITEMS, exclude_seen=False)
    vectors = system.model.item_factors.astype(np.float64)  # (N, D)
    for row, history in enumerate(query.histories):
        counts = np.bincount(history, minlength=ITEMS)
        confidence = np.where(counts > 0, settings.alpha * counts, 1.0)
        left = (vectors.T * confidence) @ vectors + settings.regularization * np.eye(6)
        right = vectors.T @ (confidence * (counts > 0))
        scores = vectors @ np.linalg.solve(left, right)
        np.testing.assert_allclose(answer.scores[row], scores[answer.items[row]], atol=2e-3)
        assert (np.diff(answer.scores[row]) <= 0).all()


def test_als_fits_the_training_part(given):
    """Items that a user took score higher than others by far, and seeds differ."""
    settings = ALSConfig(factors=24, regularization=0.01, alpha=40.0, iterations=15)
    system = ALSFamily().fit(given, settings)
    query = make_query(given.split, given.split.evaluated, "valid")
    first = system.recommend(query, 1, exclude_seen=False).items[:, 0]
    hits = [item in history for item, history in zip(first, query.histories, strict=True)]
    assert np.mean(hits) > 0.95
    other = ALSFamily().fit(given._replace(seed=1), settings)
    assert not np.array_equal(other.model.item_factors, system.model.item_factors)
