"""Several seeds as one system: users are averaged first, and the seeds' spread is told apart."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from utgrec.errors import InputError
from utgrec.evaluation.groups import by_history_length, group_figures
from utgrec.evaluation.intervals import mean_intervals, paired_test
from utgrec.evaluation.metrics import metric_table
from utgrec.evaluation.popularity import Popularity
from utgrec.evaluation.protocol import evaluate
from utgrec.evaluation.seeds import average_seeds
from utgrec.evaluation.table import comparison

ITEMS = 40


@pytest.fixture
def popularity(make_split, random_histories):
    split = make_split(random_histories)
    return evaluate(
        Popularity.fit(split, ITEMS), split, part="test", item_count=ITEMS, exclude_seen=False
    )


@pytest.fixture
def seeded(popularity):
    """The same users with ranks drawn three times."""
    rng = np.random.default_rng(0)
    return [
        dataclasses.replace(
            popularity,
            ranks=rng.integers(-1, 20, size=len(popularity.users)).astype(np.int32),
            coverage=(0.1 * seed, 0.2, 0.3),
        )
        for seed in range(3)
    ]


def test_by_hand(popularity):
    """Two users and two seeds: places 0 and 1, a miss and place 3."""
    few = {
        name: getattr(popularity, name)[:2]
        for name in ("users", "targets", "history_lengths", "repeats", "given")
    }
    first = dataclasses.replace(popularity, **few, ranks=np.array([0, -1], dtype=np.int32))
    second = dataclasses.replace(first, ranks=np.array([1, 3], dtype=np.int32))
    average = average_seeds([first, second], system="both")
    np.testing.assert_allclose(average.metrics.column("recall@5"), [1.0, 0.5])
    np.testing.assert_allclose(average.metrics.column("mrr@20"), [0.75, 0.125])
    np.testing.assert_allclose(
        average.metrics.column("ndcg@10"), [(1 + 1 / np.log2(3)) / 2, 1 / np.log2(5) / 2]
    )
    # The seeds reach 1 of 2 and 2 of 2 users: a mean of .75, deviations of .25, n − 1 of 1.
    np.testing.assert_allclose(average.seed_means[:, 1], [0.5, 1.0])
    assert average.spread["recall@10"] == pytest.approx(np.sqrt(2) * 0.25)


def test_one_seed_is_the_evaluation_itself(popularity):
    average = average_seeds([popularity], system="Popularity")
    np.testing.assert_array_equal(average.metrics.values, popularity.metrics.values)
    assert average.coverage == popularity.coverage
    assert average.spread is None
    alone = comparison([popularity], reference=None)
    assert comparison([average], reference=None) == alone


def test_the_mean_of_the_average_is_the_mean_of_the_means(seeded):
    average = average_seeds(seeded, system="S")
    expected = np.mean([one.metrics.values.mean(axis=0) for one in seeded], axis=0)
    np.testing.assert_allclose(average.metrics.values.mean(axis=0), expected)
    np.testing.assert_allclose(average.coverage, [0.1, 0.2, 0.3])
    spread = np.std([one.mean("ndcg@10") for one in seeded], ddof=1)
    assert average.spread["ndcg@10"] == pytest.approx(spread)


def test_the_order_of_the_seeds_does_not_matter(seeded):
    forth = mean_intervals(average_seeds(seeded, system="S").metrics.values)
    back = mean_intervals(average_seeds(seeded[::-1], system="S").metrics.values)
    np.testing.assert_allclose(forth, back, atol=2e-3)


def test_the_interval_is_that_of_the_averaged_users(seeded):
    values = average_seeds(seeded, system="S").metrics.column("recall@10")
    ours = mean_intervals(values[:, None], resamples=20_000)[0]
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.01)
    assert ours.high == pytest.approx(theirs.high, abs=0.01)
    # Repeated measurements of a user are no further users: pooling would narrow the interval by
    # the root of 3 even if all seeds agreed.
    same = average_seeds([seeded[0]] * 3, system="S").metrics.values
    single = mean_intervals(seeded[0].metrics.values)
    np.testing.assert_allclose(mean_intervals(same), single)


def test_averages_are_tested_and_grouped_like_evaluations(seeded, popularity):
    average = average_seeds(seeded, system="S")
    result = comparison([average, popularity], reference="S")
    assert result.rows[1].test == paired_test(
        average.metrics.column("ndcg@10"), popularity.metrics.column("ndcg@10")
    )
    grouping = by_history_length(popularity.history_lengths)
    figures = group_figures(average, grouping, "recall@10")
    chosen = average.metrics.column("recall@10")[grouping.members == 0]
    assert figures[0].interval.value == pytest.approx(chosen.mean())


def test_other_users_and_no_seed_are_refused(seeded):
    other = dataclasses.replace(seeded[1], users=seeded[1].users[::-1].copy())
    with pytest.raises(InputError, match="different users"):
        average_seeds([seeded[0], other], system="S")
    with pytest.raises(InputError, match="S has no evaluation"):
        average_seeds([], system="S")


def test_metrics_have_the_names_of_the_table(seeded):
    assert (
        average_seeds(seeded, system="S").metrics.names
        == metric_table(seeded[0].ranks, seeded[0].ks).names
    )
