"""Metrics against values worked out by hand."""

import numpy as np
import pytest

from utgrec.errors import InputError
from utgrec.evaluation.metrics import (
    MISS,
    coverage,
    find_ranks,
    metric_table,
    ndcg_at,
    recall_at,
    reciprocal_rank_at,
)

RANKS = np.array([0, 1, 2, 5, MISS])


def test_recall_by_hand():
    np.testing.assert_array_equal(recall_at(RANKS, 2), [1, 1, 0, 0, 0])
    np.testing.assert_array_equal(recall_at(RANKS, 6), [1, 1, 1, 1, 0])


def test_ndcg_by_hand():
    np.testing.assert_allclose(ndcg_at(RANKS, 5), [1.0, 0.63093, 0.5, 0.0, 0.0], atol=1e-5)
    np.testing.assert_allclose(ndcg_at(RANKS, 6)[3], 1 / np.log2(7))


def test_reciprocal_rank_by_hand():
    np.testing.assert_allclose(reciprocal_rank_at(RANKS, 6), [1, 1 / 2, 1 / 3, 1 / 6, 0])
    np.testing.assert_allclose(reciprocal_rank_at(RANKS, 5), [1, 1 / 2, 1 / 3, 0, 0])


def test_ranks_are_places_of_the_target():
    items = np.array([[4, 2, 9], [1, 0, -1], [3, -1, -1], [-1, -1, -1]])
    np.testing.assert_array_equal(find_ranks(items, np.array([9, 0, 5, 5])), [2, 1, MISS, MISS])


def test_a_metric_never_falls_when_k_grows():
    ranks = np.random.default_rng(0).integers(-1, 20, size=200)
    table = metric_table(ranks, (5, 10, 20))
    assert table.names == (
        *("recall@5", "recall@10", "recall@20"),
        *("ndcg@5", "ndcg@10", "ndcg@20"),
        "mrr@20",
    )
    for metric in ("recall", "ndcg"):
        assert (table.column(f"{metric}@5") <= table.column(f"{metric}@10")).all()
        assert (table.column(f"{metric}@10") <= table.column(f"{metric}@20")).all()
    with pytest.raises(InputError, match="no metric 'map@5'; there are recall@5"):
        table.column("map@5")


def test_coverage_counts_each_item_once():
    assert coverage(np.array([[0, 1], [1, -1], [0, 4]]), item_count=10) == 0.3
    assert coverage(np.full((3, 2), -1), item_count=10) == 0.0
