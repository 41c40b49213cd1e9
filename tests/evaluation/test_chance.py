"""Chance is what a simulation of it reaches."""

import numpy as np
import pytest

from utgrec.evaluation.chance import chances
from utgrec.evaluation.popularity import Popularity, user_counts
from utgrec.evaluation.protocol import Query, Recommendations, evaluate, make_query

ITEMS = 40


def measured(split, exclude_seen, part="test"):
    return evaluate(
        Popularity.fit(split, ITEMS), split, part=part, item_count=ITEMS, exclude_seen=exclude_seen
    )


class Lottery:
    """Draws different items at random."""

    name = "lottery"

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def recommend(self, query: Query, k: int, *, exclude_seen: bool) -> Recommendations:
        rows = []
        for history in query.histories:
            items = np.setdiff1d(np.arange(ITEMS), history) if exclude_seen else np.arange(ITEMS)
            rows.append(self.rng.choice(items, k, replace=False))
        items = np.stack(rows)
        return Recommendations(items, np.zeros(items.shape, dtype=np.float32))


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("part", ["valid", "test"])
def test_uniform_chance_is_a_lottery(make_split, random_histories, exclude_seen, part):
    split = make_split(random_histories)
    rng = np.random.default_rng(0)
    found = chances(measured(split, exclude_seen, part), split).uniform
    drawn = np.mean(
        [
            evaluate(
                Lottery(rng), split, part=part, item_count=ITEMS, exclude_seen=exclude_seen
            ).metrics.values.mean(axis=0)
            for _ in range(200)
        ],
        axis=0,
    )
    np.testing.assert_allclose(found.values.mean(axis=0), drawn, atol=0.01)
    assert 0.05 < drawn[found.names.index("recall@5")] < drawn[found.names.index("recall@20")]


def test_uniform_chance_by_hand(make_split):
    split = make_split([[0, 1, 2, 3]])
    values = chances(measured(split, True), split).uniform
    # 37 items are left, so each place holds the target once in 37.
    assert values.column("recall@10")[0] == pytest.approx(10 / 37)
    assert values.column("ndcg@5")[0] == pytest.approx(
        sum(1 / np.log2(place + 2) for place in range(5)) / 37
    )
    free = chances(measured(split, False), split).uniform
    assert free.column("recall@10")[0] == pytest.approx(10 / 40)


def test_tickets_by_popularity_are_a_raffle(make_split, random_histories):
    split = make_split(random_histories)
    evaluation = measured(split, True)
    found = chances(evaluation, split).by_popularity
    weights = 1.0 + user_counts(split, ITEMS)
    query = make_query(split, evaluation.users, "test")
    rng = np.random.default_rng(1)
    hits = np.zeros(len(evaluation.users))
    for row, history in enumerate(query.histories):
        allowed = np.setdiff1d(np.arange(ITEMS), history)
        share = weights[allowed] / weights[allowed].sum()
        drawn = rng.choice(allowed, size=(400, 10), p=share)  # with replacement
        hits[row] = (drawn == evaluation.targets[row]).any(axis=1).mean()
    np.testing.assert_allclose(found.column("recall@10"), hits, atol=0.11)
    assert found.column("recall@10").mean() == pytest.approx(hits.mean(), abs=0.01)


def test_a_cold_target_has_one_ticket(make_split):
    split = make_split([[0, 1, 2, 39]] + [[0, 1, 2, 3]] * 20)
    evaluation = measured(split, True)
    found = chances(evaluation, split).by_popularity.column("recall@5")
    total = 40 + 42 - (1 + 21) - (1 + 21) - 1  # tickets of all but items 0, 1 and 2
    assert found[0] == pytest.approx(1 - (1 - 1 / total) ** 5)


def test_a_target_that_cannot_be_recommended_has_no_chance(make_split):
    split = make_split([[5, 1, 2, 5], [1, 2, 3, 4]])
    found = chances(measured(split, True), split)
    assert found.uniform.values[0].sum() == found.by_popularity.values[0].sum() == 0
    assert found.uniform.values[1].min() > 0
    assert chances(measured(split, False), split).uniform.values[0].min() > 0


def test_a_catalogue_smaller_than_the_cut(make_split):
    split = make_split([[0, 1, 2, 3]])
    evaluation = evaluate(
        Popularity.fit(split, 5), split, part="test", item_count=5, exclude_seen=True
    )
    assert chances(evaluation, split).uniform.column("recall@5")[0] == pytest.approx(1.0)
