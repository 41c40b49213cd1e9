"""The bootstrap covers, is the ordinary bootstrap, and the paired test agrees with scipy."""

import time

import numpy as np
import pytest
from scipy import stats

from utgrec.errors import InputError
from utgrec.evaluation.intervals import (
    holm,
    mean_intervals,
    paired_test,
    resampled_means,
    statistic_intervals,
)
from utgrec.evaluation.metrics import ndcg_at


def test_an_interval_covers_the_true_mean_about_95_times_in_100():
    rng = np.random.default_rng(3)
    truth, trials, covered = 0.3, 400, 0
    for _ in range(trials):
        sample = (rng.random((300, 1)) < truth).astype(float)
        interval = mean_intervals(sample, resamples=400, seed=int(rng.integers(2**31)))[0]
        covered += interval.low <= truth <= interval.high
    # Four standard errors of a proportion of 0.95 over 400 trials are 0.044.
    assert 0.90 < covered / trials < 0.99


def test_resampling_distinct_rows_is_resampling_users():
    """Mean and covariance of the resampled means are those of the ordinary bootstrap."""
    ranks = np.random.default_rng(0).integers(-1, 10, size=500)
    values = np.stack([ndcg_at(ranks, 10), (ranks == 0).astype(float)], axis=1)  # (U, 2)
    means = resampled_means(values, resamples=20_000, seed=0)
    expected = np.cov(values.T, bias=True) / len(values)
    np.testing.assert_allclose(means.mean(axis=0), values.mean(axis=0), atol=4e-4)
    np.testing.assert_allclose(np.cov(means.T), expected, rtol=0.05)


def test_the_percentiles_agree_with_scipy():
    values = np.random.default_rng(1).exponential(size=200)
    ours = mean_intervals(values[:, None], resamples=20_000)[0]
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.006)
    assert ours.high == pytest.approx(theirs.high, abs=0.006)


def test_equal_seeds_give_equal_intervals_whatever_the_order_of_users():
    rng = np.random.default_rng(2)
    values = rng.random((100, 3)).round(1)
    first = mean_intervals(values, seed=5)
    shuffled = mean_intervals(rng.permutation(values), seed=5)
    np.testing.assert_allclose(first, shuffled, rtol=1e-12)
    assert first == mean_intervals(values, seed=5)
    assert first != mean_intervals(values, seed=6)


def test_the_interval_narrows_with_the_root_of_the_number_of_users():
    values = np.random.default_rng(4).random(400)[:, None]
    few, many = mean_intervals(values)[0], mean_intervals(np.tile(values, (16, 1)))[0]
    ratio = (few.high - few.low) / (many.high - many.low)
    assert ratio == pytest.approx(4.0, rel=0.15)


def test_chunks_change_nothing_but_memory(monkeypatch):
    values = np.random.default_rng(0).random((50, 2))
    whole = resampled_means(values, resamples=100, seed=1)
    monkeypatch.setattr("utgrec.evaluation.intervals._CHUNK", 50 * 7)
    # Up to the last digit: a product's order of summation depends on its shape.
    found = resampled_means(values, resamples=100, seed=1)
    np.testing.assert_allclose(found, whole, rtol=1e-14)


def test_a_thousand_resamples_of_22_thousand_users_take_no_time():
    ranks = np.random.default_rng(0).integers(-1, 20, size=22_363)
    values = np.stack([ndcg_at(ranks, k) for k in (5, 10, 20)], axis=1)
    began = time.perf_counter()
    mean_intervals(values, resamples=1000)
    assert time.perf_counter() - began < 2.0


def test_no_users_is_an_error():
    with pytest.raises(InputError, match="at least 1 user, got 0"):
        mean_intervals(np.zeros((0, 2)))


def test_a_ratio_is_resampled_user_by_user():
    """Half of the other system for every user: the ratio is 0.5 in each resample."""
    other = np.random.default_rng(0).random(80)
    values = np.stack([other / 2, other], axis=1)
    interval = statistic_intervals(values, lambda m: m[:, :1] / m[:, 1:])[0]
    np.testing.assert_allclose(interval, [0.5, 0.5, 0.5])


def test_the_sign_flip_test_agrees_with_scipy():
    rng = np.random.default_rng(11)
    first, second = rng.random(12).round(1), rng.random(12).round(1) + 0.15
    exact = stats.permutation_test(  # all 2 ** 12 flips
        (first - second,),
        lambda d, axis: d.mean(axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    ).pvalue
    ours = paired_test(first, second, flips=20_000)
    assert 0.01 < exact < 0.9  # else the comparison says little
    assert ours.p_value == pytest.approx(exact, abs=0.015)
    assert ours.difference.value == pytest.approx((first - second).mean())
    assert (ours.better, ours.worse) == ((first > second).sum(), (first < second).sum())


def test_without_a_difference_small_p_values_are_rare():
    rng = np.random.default_rng(5)
    p_values = [
        paired_test(*rng.integers(0, 3, (2, 60)).astype(float), resamples=1, flips=199).p_value
        for _ in range(300)
    ]
    assert np.mean(np.array(p_values) <= 0.05) < 0.10
    assert np.mean(np.array(p_values) <= 0.5) > 0.35


def test_the_test_is_symmetric_and_bounded():
    rng = np.random.default_rng(6)
    first, second = rng.random(200) + 1, rng.random(200)
    ahead, behind = paired_test(first, second, flips=999), paired_test(second, first, flips=999)
    assert ahead.p_value == behind.p_value == 1 / 1000
    assert ahead.difference.value == -behind.difference.value > 0
    assert paired_test(first, first).p_value == 1.0
    with pytest.raises(InputError, match="200 and 199 values"):
        paired_test(first, second[:-1])


def test_holm_by_hand():
    # Sorted: .01 x 4, then .02 x 3, then .03 x 2 = .06, which is already reached, then .04 -> .06.
    np.testing.assert_allclose(holm([0.04, 0.01, 0.03, 0.02]), [0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
