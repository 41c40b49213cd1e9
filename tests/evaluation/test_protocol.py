"""The protocol hides what must be hidden, counts what must be counted, refuses what bends it."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest

from utgrec.errors import CorruptFile, InputError
from utgrec.evaluation.itemknn import ItemKNN
from utgrec.evaluation.oracle import OracleSystem
from utgrec.evaluation.popularity import Popularity
from utgrec.evaluation.protocol import Recommendations, evaluate, make_query
from utgrec.evaluation.result import Evaluation

ITEMS = 40


class Fixed:
    """Recommends the same items to everybody and remembers what it was asked."""

    name = "fixed"

    def __init__(self, items):
        self.items = np.asarray(items)
        self.queries = []

    def recommend(self, query, k, *, exclude_seen):
        self.queries.append(query)
        items = np.tile(self.items, (len(query.users), 1))
        return Recommendations(items, np.zeros(items.shape, dtype=np.float32))


def test_ranks_and_figures_by_hand(make_split):
    split = make_split([[0, 1, 2, 3], [4, 5], [3, 3, 1]])
    system = Fixed([3, 1, 0])
    result = evaluate(system, split, part="test", item_count=6, ks=(1, 3), exclude_seen=False)
    np.testing.assert_array_equal(result.users, [0, 2])  # user 1 is training only
    np.testing.assert_array_equal(result.targets, [3, 1])
    np.testing.assert_array_equal(result.ranks, [0, 1])
    np.testing.assert_array_equal(result.history_lengths, [3, 2])
    assert result.mean("recall@1") == 0.5
    assert result.mean("ndcg@3") == pytest.approx((1 + 0.63093) / 2, abs=1e-5)
    assert result.mean("mrr@3") == 0.75
    assert result.coverage == (1 / 6, 3 / 6)


@pytest.mark.parametrize(("part", "history"), [("valid", [0, 1]), ("test", [0, 1, 2])])
def test_a_system_sees_the_past_and_nothing_else(make_split, part, history):
    system = Fixed([0])
    split = make_split([[0, 1, 2, 3]])
    evaluate(system, split, part=part, item_count=4, ks=(1,), exclude_seen=False)
    np.testing.assert_array_equal(system.queries[0].histories[0], history)


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("part", ["valid", "test"])
def test_one_user_at_a_time_equals_a_batch(make_split, random_histories, part, exclude_seen):
    split = make_split(random_histories)
    for system in (
        Popularity.fit(split, ITEMS),
        ItemKNN.fit(split, ITEMS),
        OracleSystem(RandomScorer()),
    ):
        runs = [
            evaluate(
                system,
                split,
                part=part,
                item_count=ITEMS,
                exclude_seen=exclude_seen,
                batch_size=size,
            )
            for size in (1, 7, 1000)
        ]
        for run in runs[1:]:
            np.testing.assert_array_equal(run.ranks, runs[0].ranks)
            assert run.coverage == runs[0].coverage
        assert (runs[0].ranks >= 0).any()


def test_a_sample_of_users_gives_their_own_ranks(make_split, random_histories):
    split = make_split(random_histories)
    system = ItemKNN.fit(split, ITEMS)
    everybody = evaluate(system, split, part="test", item_count=ITEMS, exclude_seen=True)
    chosen = everybody.users[::3]
    sample = evaluate(system, split, part="test", item_count=ITEMS, exclude_seen=True, users=chosen)
    np.testing.assert_array_equal(sample.ranks, everybody.ranks[::3])


def test_repeated_targets_are_counted(make_split):
    split = make_split([[0, 1, 0], [0, 1, 2], [3, 3, 3]])
    result = evaluate(Popularity.fit(split, 4), split, part="test", item_count=4, exclude_seen=True)
    np.testing.assert_array_equal(result.repeats, [True, False, True])
    np.testing.assert_array_equal(result.ranks[[0, 2]], [-1, -1])  # seen items cannot be hit
    assert result.summary()["targets_in_history"] == 2
    assert result.summary()["users_with_fewer_items"] == 3


@pytest.mark.parametrize(
    ("items", "exclude_seen", "message"),
    [
        ([3, 4, 3], False, "item 3 to user 0 twice"),
        ([3, 6, 4], False, "item 6 to user 0 outside the catalogue of 6 items"),
        ([3, -2, 4], False, "item -2 to user 0 outside"),
        ([3, 1, 4], True, "item 1 to user 0, who has it in their history"),
        ([3, -1, 4], False, "item 4 to user 0 after a place without an item"),
        ([3, 4], False, r"asked for integers and scores of shape \(1, 3\)"),
        ([3.0, 4.0, 5.0], False, "asked for integers"),
    ],
)
def test_a_system_that_breaks_the_rules_is_refused(make_split, items, exclude_seen, message):
    split = make_split([[0, 1, 2, 3]])
    with pytest.raises(InputError, match=message):
        evaluate(Fixed(items), split, part="test", item_count=6, ks=(3,), exclude_seen=exclude_seen)


def test_fewer_items_are_allowed_and_seen_items_too_if_asked(make_split):
    split = make_split([[0, 1, 2, 3]])
    for items in ([3, -1, -1], [-1, -1, -1], [0, 1, 2]):
        result = evaluate(
            Fixed(items), split, part="test", item_count=6, ks=(3,), exclude_seen=False
        )
        np.testing.assert_array_equal(result.given, [sum(item >= 0 for item in items)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"users": np.array([1])}, "user 1 has no test item"),
        ({"users": np.array([0, 0])}, "each only once"),
        ({"users": np.array([], dtype=np.int64)}, "got 0 users"),
        ({"users": np.array([5])}, "do not fit a domain of 2 users"),
        ({"item_count": 3}, "item_count is 3 but the log names item 3"),
        ({"part": "train"}, "part must be 'valid' or 'test', got 'train'"),
        ({"ks": (10, 5)}, "ks must be ascending"),
        ({"ks": ()}, "ks must be ascending"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_bad_arguments_are_named(make_split, changes, message):
    split = make_split([[0, 1, 2, 3], [1, 2]])
    settings = {"part": "test", "item_count": 4, "ks": (1,), "exclude_seen": False} | changes
    with pytest.raises(InputError, match=message):
        evaluate(Fixed([0]), split, **settings)


def test_progress_counts_users(make_split, random_histories):
    split = make_split(random_histories)
    calls = []
    result = evaluate(
        Popularity.fit(split, ITEMS),
        split,
        part="test",
        item_count=ITEMS,
        exclude_seen=True,
        batch_size=20,
        progress=lambda done, total: calls.append((done, total)),
    )
    total = len(result.users)
    assert calls[-1] == (total, total)
    assert [done for done, _ in calls] == [*range(20, total, 20), total]


def test_an_evaluation_survives_parquet(make_split, random_histories):
    split = make_split(random_histories)
    result = evaluate(
        ItemKNN.fit(split, ITEMS), split, part="test", item_count=ITEMS, exclude_seen=True
    )
    file = io.BytesIO()
    pq.write_table(result.to_table(), file)
    back = Evaluation.from_table(pq.read_table(io.BytesIO(file.getvalue())))
    assert back.summary() == result.summary()
    for name in ("users", "targets", "ranks", "history_lengths", "repeats", "given"):
        np.testing.assert_array_equal(getattr(back, name), getattr(result, name))
        assert getattr(back, name).dtype == getattr(result, name).dtype
    with pytest.raises(CorruptFile, match="not an evaluation"):
        Evaluation.from_table(result.to_table().drop_columns(["rank"]))


def test_the_oracle_ranks_by_score_and_never_gives_impossible_items(make_split):
    class Scores:
        def scores(self, users, histories):
            return np.tile([0.1, 0.5, -np.inf, 0.5, 0.9], (len(users), 1))

    split = make_split([[4, 0, 1, 3]])
    query = make_query(split, np.array([0]), "valid")  # history 4, 0
    answer = OracleSystem(Scores()).recommend(query, 4, exclude_seen=True)
    np.testing.assert_array_equal(answer.items, [[1, 3, -1, -1]])
    answer = OracleSystem(Scores()).recommend(query, 4, exclude_seen=False)
    np.testing.assert_array_equal(answer.items, [[4, 1, 3, 0]])


def test_an_oracle_without_order_is_refused(make_split):
    class Scores:
        def scores(self, users, histories):
            return np.array([[0.0, np.nan]])

    query = make_query(make_split([[0, 1, 1]]), np.array([0]), "test")
    with pytest.raises(InputError, match="user 0 as NaN"):
        OracleSystem(Scores()).recommend(query, 1, exclude_seen=False)


class RandomScorer:
    """A fixed random taste per user."""

    def scores(self, users, histories):
        return np.stack([np.random.default_rng(user).random(ITEMS) for user in users])
