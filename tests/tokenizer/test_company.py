"""Company: what is taken beside an item, from training histories alone."""

import numpy as np
import pytest

from utgrec.data.split import Split
from utgrec.errors import BadConfig
from utgrec.tokenizer.company import CompanyConfig, company_directions

CONFIG = CompanyConfig(rank=6, window=3, dropout=0.0)


def make_split(histories: list[list[int]]) -> Split:
    users = len(histories)
    return Split(
        offsets=np.cumsum([0, *map(len, histories)]).astype(np.int64),
        train=np.array([item for items in histories for item in items], np.int32),
        valid=np.zeros(users, np.int32),
        test=np.zeros(users, np.int32),
    )


def two_groups(items: int = 20, users: int = 60, seed: int = 0) -> Split:
    """Users take from the even or from the odd items; the last item is never taken."""
    rng = np.random.default_rng(seed)
    return make_split(
        [(2 * rng.integers(0, (items - 1) // 2, 6) + user % 2).tolist() for user in range(users)]
    )


def test_items_taken_together_are_near_one_another() -> None:
    directions = company_directions(two_groups(), 20, CompanyConfig(rank=2, window=3))[:18]
    similar = directions @ directions.T
    same = np.equal.outer(np.arange(18) % 2, np.arange(18) % 2)
    assert similar[same].min() > similar[~same].max()


def test_an_item_that_nobody_took_has_none_and_all_others_are_equally_loud() -> None:
    lengths = np.linalg.norm(company_directions(two_groups(), 20, CONFIG), axis=1)
    assert lengths[19] == 0
    np.testing.assert_allclose(lengths[:18], 1)


def test_does_not_depend_on_the_order_of_items() -> None:
    split = two_groups()
    order = np.random.default_rng(3).permutation(20)  # new number of each item
    renamed = split._replace(train=order[split.train].astype(np.int32))
    one, two = (company_directions(part, 20, CONFIG) for part in (split, renamed))
    np.testing.assert_allclose(one @ one.T, (two @ two.T)[np.ix_(order, order)], atol=1e-3)


def test_knows_training_histories_alone() -> None:
    split = two_groups()
    planted = split._replace(valid=split.valid + 3, test=split.test + 5)
    one, two = (company_directions(part, 20, CONFIG) for part in (split, planted))
    np.testing.assert_array_equal(one, two)
    leaky = split._replace(train=np.concatenate([split.train[:-1], [19]]).astype(np.int32))
    assert not np.array_equal(one, company_directions(leaky, 20, CONFIG))


def test_users_do_not_run_into_each_other() -> None:
    directions = company_directions(make_split([[0, 1], [2, 3]]), 4, CONFIG)
    graph = directions @ directions.T
    assert abs(graph[1, 2]) < 1e-9 and abs(graph[0, 3]) < 1e-9


def test_the_window_says_how_far_company_reaches() -> None:
    split = make_split([list(range(6))])
    near, far = (
        company_directions(split, 7, CompanyConfig(rank=2, window=window)) for window in (1, 3)
    )
    assert near.shape == far.shape == (7, 2)
    assert not near[6].any()
    assert np.abs(near @ near.T - far @ far.T).max() > 0.01


@pytest.mark.parametrize("histories", [[[0], [1]], [[2, 2, 2]], [[]]])
def test_a_log_without_pairs_gives_no_company(histories: list[list[int]]) -> None:
    assert not company_directions(make_split(histories), 4, CONFIG).any()


@pytest.mark.parametrize("settings", [{"rank": -1}, {"window": 0}, {"dropout": 1.0}])
def test_impossible_settings_are_refused(settings: dict) -> None:
    with pytest.raises(BadConfig):
        CompanyConfig(**settings)
